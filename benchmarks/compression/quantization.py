"""What quantization costs: size against KL, agreement and word errors on real speech.

Every variant is exported from the same checkpoint and run by the runtime. KL and top-1 agreement
are teacher-forced along the float32 model's own transcript of the first 30 s of a clip; words
are those of whole transcripts. The output file is written after every variant, and an interrupted
run resumes when you rerun the command.

    python -m benchmarks.compression.quantization CHECKPOINT --data AUDIOFOLDER \\
        --output results.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

import baldwhisper_mlx  # before anything imports MLX, for the BLAS
from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.export.quantize import QuantizeOptions
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import WEIGHTS_FILE
from baldwhisper_mlx.decoding.options import DecodingOptions
from benchmarks.accuracy.word_errors import rate_of
from benchmarks.options import Benchmark, data_option, language_option, limit_option, output_option
from benchmarks.report.compression import quantization_rows
from benchmarks.report.tables import markdown
from benchmarks.result_files import data_name, read_clips, resume, write_json


def variants() -> dict[str, QuantizeOptions | None]:
    """Name to options: all matrices, the embedding kept or finer, and the embedding alone."""
    found: dict[str, QuantizeOptions | None] = {"float16": None}
    for bits in (8, 6, 4):
        for group in (64, 32):
            found[f"{bits} bits, groups of {group}"] = QuantizeOptions(bits=bits, group_size=group)
        found[f"{bits} bits, embedding float16"] = QuantizeOptions(bits=bits, embedding=None)
        if bits < 8:  # the embedding is what few bits hurt most
            options = QuantizeOptions(bits=bits, embedding=8)
            found[f"{bits} bits, embedding 8 bits"] = options
        found[f"float16, embedding {bits} bits"] = QuantizeOptions(
            bits=bits, overrides=(("*", None), ("decoder.token_embedding*", bits))
        )
    return found | {"5 bits, groups of 64": QuantizeOptions(bits=5)}


def prompt_of(model: LoadedModel, language: str) -> list[int]:
    return model.tokenizer.sot_sequence(language, "transcribe", timestamps=False)


def log_probabilities(model: LoadedModel, samples: Any, tokens: Sequence[int], skip: int) -> Any:
    """Of the next token (n, V) float32, after each prefix of `tokens` longer than `skip`."""
    import mlx.core as mx

    mel = LogMelSpectrogram(samples, model.config.n_mels)
    cache = model.model.make_cache()
    frames = min(mel.n_frames, 2 * model.config.n_audio_ctx)
    model.model.encode(mel.window(0)[None], [frames], cache)
    logits = model.model.logits(model.model.decoder(mx.array([list(tokens)]), cache))[0, skip:]
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


class Reference:
    """The float32 model's transcripts and probabilities, the latter in files."""

    def __init__(
        self, model: LoadedModel, clips: Sequence[Any], folder: Path, language: str
    ) -> None:
        self.folder = folder
        prompt = prompt_of(model, language)
        self.skip = len(prompt) - 1
        self.tokens = []
        for number, samples in enumerate(tqdm(clips, desc="float32", unit="clip")):
            mel = LogMelSpectrogram(samples, model.config.n_mels)
            frames = min(mel.n_frames, 2 * model.config.n_audio_ctx)
            model.decoder.encode(mel.window(0)[None], [frames])
            text = model.decoder.decode(prompt, DecodingOptions(timestamps=False))[0].tokens
            self.tokens.append([*prompt, *text])
            expected = log_probabilities(model, samples, self.tokens[-1], self.skip)
            np.save(folder / f"{number}.npy", expected)

    def compare(self, model: LoadedModel, clips: Sequence[Any]) -> dict[str, float]:
        """Mean KL(float32 || model) in nats a token, and how often the best token is the same."""
        kl, same = [], []
        for number, (samples, tokens) in enumerate(zip(clips, self.tokens, strict=True)):
            expected = np.load(self.folder / f"{number}.npy")
            found = log_probabilities(model, samples, tokens, self.skip)
            kl.append((np.exp(expected) * (expected - found)).sum(axis=-1))
            same.append(expected.argmax(axis=-1) == found.argmax(axis=-1))
        return {
            "kl": float(np.concatenate(kl).mean()),
            "top1": float(np.concatenate(same).mean()),
            "tokens": int(sum(map(len, same))),
        }


def transcripts(
    model: LoadedModel, rows: Sequence[dict[str, Any]], clips: Sequence[Any], language: str
) -> dict[str, str]:
    """Greedy transcripts of whole clips, by file name."""
    return {
        row["file_name"]: baldwhisper_mlx.transcribe(
            samples, model, language=language, temperature=0.0
        ).text
        for row, samples in zip(rows, clips, strict=True)
    }


def measure(
    checkpoint: Checkpoint,
    wanted: Sequence[str],
    rows: Sequence[dict[str, Any]],
    clips: Sequence[Any],
    language: str,
) -> Iterator[dict[str, Any]]:
    """One result a variant, as they come."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        exact = export_mlx(checkpoint, root / "float32", dtype="float32")
        model = baldwhisper_mlx.load_model(exact, dtype="float32")
        reference = Reference(model, clips, root, language)
        for variant in tqdm(wanted, unit="variant"):
            options = variants()[variant]
            folder = export_mlx(checkpoint, root / "variant", quantize=options, force=True)
            model = baldwhisper_mlx.load_model(folder, dtype="float32")
            megabytes = (folder / WEIGHTS_FILE).stat().st_size / 1e6
            yield (
                {"variant": variant, "megabytes": round(megabytes, 1)}
                | reference.compare(model, clips)
                | rate_of(rows, transcripts(model, rows, clips, language))
            )


@click.command(cls=Benchmark)
@click.argument("checkpoint")
@data_option()
@output_option()
@limit_option
@language_option
@click.option("--variant", "names", multiple=True, type=click.Choice(list(variants())),
              help="Only this one; repeatable.")  # fmt: skip
def main(
    checkpoint: str,
    data: Path,
    output: Path,
    limit: int | None,
    language: str,
    names: tuple[str, ...],
) -> None:
    """Measure CHECKPOINT, quantized in many ways, on DATA (metadata.jsonl: file_name, text)."""
    import mlx.core as mx

    rows = read_clips(data, limit)
    empty: dict[str, Any] = {
        "checkpoint": Path(checkpoint).name,
        "data": data_name(data),
        "clips": len(rows),
        "language": language,
        "normalizer": "whisper EnglishTextNormalizer",
        "mlx": version("mlx"),
        "device": str(mx.default_device()),
        "variants": [],
    }
    result = resume(output, empty, "variants")
    done = {row["variant"] for row in result["variants"]}
    wanted = [name for name in names or variants() if name not in done]
    if wanted:
        clips = [load_audio(data / row["file_name"]) for row in rows]
        for row in measure(read_checkpoint(checkpoint), wanted, rows, clips, language):
            result["variants"].append(row)
            write_json(output, result)
    click.echo(markdown(quantization_rows(result)))


if __name__ == "__main__":
    main()
