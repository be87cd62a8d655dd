"""Whisper with fewer encoder layers: where it starts, what a short training gains, what it costs.

Of every variant: the error of the encoder's final states and the KL of the next token through the
teacher's decoder, as the layers are chosen, after the fit by least squares, after a training on the
teacher's states, and after a short one through the decoder; then the time of encoding and the word
errors of the exported model in the runtime. Trainings and transcripts resume when you rerun the
command; the result file is written after every measurement.

    python -m benchmarks.compression.encoder_depth TEACHER --audio DIR --text DIR --dev DIR \\
        --data FOLDER --output runs/encoder --results benchmarks/results/encoder_depth.json

`--audio`, `--text` and `--dev` are prepared log-mel (features=mel); the first needs no text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import baldwhisper_mlx  # before anything imports MLX, for the BLAS
from baldwhisper_convert.checkpoint.checkpoint import fingerprint
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.recordings import read_recordings
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.bench.machine import chip
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.json_lines import read_json_lines
from benchmarks.accuracy.word_errors import rate_of, transcribe_missing
from benchmarks.compression.encoder_variants import (
    BATCH,
    CROP,
    DEV_WINDOWS,
    FIT_WINDOWS,
    RATE,
    VARIANTS,
    Runner,
)
from benchmarks.options import (
    Benchmark,
    Decorator,
    checkpoints_option,
    data_option,
    limit_option,
    only_option,
    output_option,
)
from benchmarks.result_files import (
    check_settings,
    data_name,
    file_stem,
    read_clips,
    resume,
    spread,
    transcripts_file,
    write_json,
)

SECONDS = (10, 30)
ROUNDS = 7


def word_errors(
    model: Path, name: str, folders: Sequence[Path], limit: int | None, work: Path
) -> dict[str, Any]:
    """Word error rate of an exported model on every folder of speech."""
    found = {}
    for folder in folders:
        clips = spread(read_clips(folder), limit)
        file = transcripts_file(work, folder)
        transcribe_missing(str(model), clips, folder, file, name, temperature=0.0)
        texts = {
            row["file_name"]: row["text"] for row in read_json_lines(file) if row["model"] == name
        }
        found[data_name(folder)] = {"clips": len(clips)} | rate_of(clips, texts)
    return found


def encode_times(models: dict[str, Path], samples: Samples) -> dict[str, dict[str, float]]:
    """CPU seconds of encoding, the least of `ROUNDS`, with all models in turn.

    CPU time, because other work on the machine hardly changes it.
    """
    loaded = {name: baldwhisper_mlx.load_model(folder) for name, folder in models.items()}
    least: dict[str, dict[str, float]] = {name: {} for name in models}
    for _ in range(ROUNDS):
        for name, model in loaded.items():
            for seconds in SECONDS:
                took = _encode_seconds(model, samples[: seconds * SAMPLE_RATE])
                best = least[name].get(str(seconds), took)
                least[name][str(seconds)] = round(min(best, took), 4)
    return least


def _encode_seconds(loaded: LoadedModel, samples: Samples) -> float:
    """CPU time from features of a clip's first window to the decoder's keys and values of it."""
    import mlx.core as mx

    mel = LogMelSpectrogram(samples, loaded.config.n_mels)
    window, frames = mel.window(0)[None], min(mel.n_frames, N_FRAMES)
    cache = loaded.model.make_cache()
    mx.eval(window)
    began = time.process_time()
    loaded.model.encode(window, [frames], cache)
    mx.eval([layer.cross_attn.state() for layer in cache])
    return time.process_time() - began


def speech_of(folder: Path, seconds: int) -> Samples:
    """The first seconds of a folder's clips, joined."""
    parts: list[Samples] = []
    for clip in read_clips(folder):
        parts.append(load_audio(folder / clip["file_name"]))
        if sum(map(len, parts)) >= seconds * SAMPLE_RATE:
            break
    return np.concatenate(parts)[: seconds * SAMPLE_RATE]


def prepared_option(name: str, what: str) -> Decorator:
    """`--NAME DIR`, a folder that `baldwhisper-convert prepare` wrote."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    text = f"Prepared {what}."
    return click.option(f"--{name}", required=True, type=folder, metavar="DIR", help=text)


@click.command(cls=Benchmark)
@click.argument("teacher")
@prepared_option("audio", "log-mel, to fit the layers to and to train on")
@prepared_option("text", "log-mel with text, for the training through the decoder")
@prepared_option("dev", "log-mel with text, to measure the distance on")
@data_option(multiple=True)
@checkpoints_option
@output_option(name="--results")
@click.option("--steps", nargs=2, type=int, default=(60, 15), show_default=True,
              help="Steps of the training on states, and of that through the decoder.")  # fmt: skip
@limit_option
@only_option
def main(
    teacher: str, audio: Path, text: Path, dev: Path, data: Sequence[Path], checkpoints: Path,
    output: Path, steps: tuple[int, int], limit: int | None, only: Sequence[str],
) -> None:  # fmt: skip
    """Measure lighter encoders of TEACHER."""
    names = [name for name in VARIANTS if not only or any(part in name for part in only)]
    empty: dict[str, Any] = {
        "chip": chip(), "steps": list(steps), "batch_size": BATCH, "learning_rate": RATE,
        "crop_positions": CROP, "dev_windows": DEV_WINDOWS, "fit_windows": FIT_WINDOWS,
        "limit": limit, "variants": {},
    }  # fmt: skip
    result = resume(output, empty, "variants")
    source, sets = read_checkpoint(teacher), [Prepared(folder) for folder in (audio, text, dev)]
    prints = dict(zip(("audio", "text", "dev"), (one.fingerprint for one in sets), strict=True))
    check_settings(checkpoints, {"teacher": fingerprint(source), "steps": steps} | prints)
    runner = Runner(source, sets[0], sets[1], sets[2], checkpoints, steps)
    recordings = read_recordings(data[0])
    folders = {name: checkpoints / file_stem(name) for name in names}
    for name, folder in folders.items():
        if name in result["variants"] and folder.is_dir():
            continue
        checkpoint, row = runner.run(name)
        export_mlx(checkpoint, folder, dtype="float32", calibration=recordings, force=True)
        result["variants"][name] = row
        write_json(output, result)
    for name, times in encode_times(folders, speech_of(data[0], max(SECONDS))).items():
        result["variants"][name]["encode_cpu_seconds"] = times
        write_json(output, result)
    for name, folder in folders.items():
        row = result["variants"][name]
        if "wer" not in row:
            row["wer"] = word_errors(folder, name, data, limit, checkpoints)
            write_json(output, result)


if __name__ == "__main__":
    main()
