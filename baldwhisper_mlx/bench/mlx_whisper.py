"""The peer that runs on the same MLX: the teacher in mlx-whisper, with the same weights.

It says what the runtime gains, apart from what compression gains. mlx-whisper reads folders of
its own, so one is written from an exported model; it gets the BLAS that we get, because
baldwhisper_mlx is imported before MLX.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from baldwhisper_mlx.audio import load_audio
from baldwhisper_mlx.bench.runtimes import Task, count_segments, random_mel, random_states
from baldwhisper_mlx.community import is_community, read_community, sinusoids
from baldwhisper_mlx.config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from baldwhisper_mlx.features import N_FRAMES
from baldwhisper_mlx.load import read_weights
from baldwhisper_mlx.transcription import TEMPERATURES

_PARTS = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}
_POSITIONS = "encoder.positional_embedding"


def best_dtype() -> mx.Dtype:
    """What mlx-whisper runs fastest in: its default on a GPU, float32 on a CPU, as we do."""
    gpu = mx.default_device().type == mx.DeviceType.gpu
    return mx.float16 if gpu else mx.float32


def write_folder(source: Path, target: Path) -> Path:
    """Makes a model readable for mlx-whisper, in the dtype it runs fastest in.

    mlx-whisper keeps weights in the type they are stored in and converts them at every use.

    Args:
        source: an exported model or one of mlx-community's, dense and unquantized.
        target: the folder to make.

    Returns:
        `target`.

    Raises:
        ValueError: a model that mlx-whisper has no form for; the message says why.
    """
    # A community folder is read like ours, so that both are written alike.
    if is_community(source):
        config, weights, _ = read_community(source)
    else:
        config = ModelConfig.from_file(source / CONFIG_FILE)
        weights = read_weights(source / WEIGHTS_FILE)
    if config.embedding_rank is not None or config.quantization is not None:
        raise ValueError(
            f"{source}: mlx-whisper needs a dense embedding and weights that are not quantized; "
            "compare the teacher as it was exported"
        )
    positions = weights.pop(_POSITIONS)
    if not mx.allclose(positions, sinusoids(*positions.shape), atol=1e-2).item():
        raise ValueError(f"{source}: trained encoder positions, which mlx-whisper cannot read")
    target.mkdir(parents=True, exist_ok=True)
    split: dict[str, mx.array] = {}
    for name, value in weights.items():
        split |= _split(name, value.astype(best_dtype()))
    mx.save_safetensors(str(target / "weights.safetensors"), split)
    # OpenAI's ten dimensions, which ModelConfig has first; positions have no weight here.
    raw = config.to_dict()
    dims = {key: value for key, value in raw.items() if key.startswith("n_")}
    text = json.dumps(dims | {"model_type": "whisper"}, indent=1)
    (target / CONFIG_FILE).write_text(text, encoding="utf-8")
    return target


def _split(name: str, value: mx.array) -> dict[str, mx.array]:
    """A tensor under mlx-whisper's names, which keep query, key and value apart."""
    prefix, _, leaf = name.rpartition(".")
    base, _, fused = prefix.rpartition(".")
    if fused not in _PARTS:
        return {name: value}
    parts = _PARTS[fused]
    found = dict(zip(parts, mx.split(value, len(parts)), strict=True))
    if leaf == "bias":
        del found["key"]  # Whisper's keys have none
    return {f"{base}.{part}.{leaf}": piece for part, piece in found.items()}


class MlxWhisper:
    """A model in mlx-whisper, at its own defaults but for float32 on a CPU.

    Args:
        model: folder from `write_folder`.
    """

    def __init__(self, model: str) -> None:
        # mlx_whisper.transcribe is a function of the same name, and hides the module
        import importlib

        module = importlib.import_module("mlx_whisper.transcribe")

        self.folder = model
        self.dtype = best_dtype()
        self.fp16 = self.dtype == mx.float16
        self.module: Any = module
        self.model: Any = module.ModelHolder.get_model(model, self.dtype)

    def describe(self) -> dict[str, Any]:
        """Version and dtype."""
        return {
            "runtime": f"mlx-whisper {version('mlx-whisper')}",
            "memory_dtype": "float16" if self.fp16 else "float32",
        }

    def decode(self, *, batch: int, tokens: int, timestamps: bool) -> Task:
        """See `Runtime`."""
        from mlx_whisper.decoding import DecodingOptions, decode

        dims = self.model.dims
        states = random_states(batch, dims, self.dtype)
        mx.eval(states)
        options = DecodingOptions(
            language="en",
            without_timestamps=not timestamps,
            suppress_tokens=f"-1,{self._eot()}",
            sample_len=tokens,
            fp16=self.fp16,
        )

        def task() -> dict[str, Any]:
            results = decode(self.model, states, options)
            return {"tokens": sum(len(result.tokens) for result in results)}

        return task

    def encode(self, *, seconds: float) -> Task:
        """See `Runtime`; always 30 s, whatever `seconds`."""
        mel = random_mel(self.model.dims.n_mels).astype(self.dtype)
        mx.eval(mel)

        def task() -> dict[str, Any]:
            states = self.model.encoder(mel)
            cross = [block.cross_attn for block in self.model.decoder.blocks]
            mx.eval([(layer.key(states), layer.value(states)) for layer in cross])
            return {}

        return task

    def first_token(self, *, audio: str, language: str | None) -> Task:
        """See `Runtime`."""
        from mlx_whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim
        from mlx_whisper.decoding import DecodingOptions

        def task() -> dict[str, Any]:
            samples, bins = load_audio(audio), self.model.dims.n_mels
            mel = log_mel_spectrogram(samples, n_mels=bins, padding=N_SAMPLES)
            window = pad_or_trim(mel[:N_FRAMES], N_FRAMES, axis=-2).astype(self.dtype)
            code = language or "en"
            if language is None and self.model.is_multilingual:
                _, found = self.model.detect_language(window)
                code = max(found, key=found.get)
            options = DecodingOptions(language=code, sample_len=1, fp16=self.fp16)
            return {"tokens": len(self.model.decode(window, options).tokens)}

        return task

    def transcribe(self, *, audio: str, language: str | None, temperature: float | None) -> Task:
        """See `Runtime`."""
        schedule = TEMPERATURES if temperature is None else (temperature,)

        def task() -> dict[str, Any]:
            result = self.module.transcribe(
                load_audio(audio),
                path_or_hf_repo=self.folder,
                language=language,
                temperature=schedule,
                fp16=self.fp16,
            )
            segments = [(s["seek"], s["temperature"], len(s["tokens"])) for s in result["segments"]]
            return count_segments(segments) | {"text": result["text"].strip()}

        return task

    def _eot(self) -> int:
        from mlx_whisper.tokenizer import get_tokenizer

        multilingual = self.model.is_multilingual
        eot: int = get_tokenizer(multilingual, num_languages=self.model.num_languages).eot
        return eot


def convert() -> None:
    """`write_folder` as a program; its arguments: source, target."""
    source, target = sys.argv[1:]
    write_folder(Path(source), Path(target))


def print_text() -> None:
    """The shortest program that does what `baldwhisper transcribe` does; for `cold`.

    Its arguments: folder, audio file, language (empty to detect it), temperature or None.
    """
    folder, audio, language, temperature = sys.argv[1:]
    runtime = MlxWhisper(folder)
    task = runtime.transcribe(
        audio=audio,
        language=language or None,
        temperature=None if temperature == "None" else float(temperature),
    )
    print(task()["text"], flush=True)
