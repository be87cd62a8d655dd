"""Word errors and times of models in full audio context, cut off, and padded with constants.

    python -m benchmarks.accuracy.short_context --model whisper-base=DIR --data FOLDER \\
        --stride 1,8 --tail 100 --calibration FOLDER --limit 60 \\
        --output benchmarks/results/short_context.json

Every clip is transcribed in every audio context before the next clip, so that times are compared
under the same load; then so are sounds without speech. Greedy, temperature 0 unless --fallback is
given. Each transcript is appended to a JSONL file, from which an interrupted run resumes
when you rerun the command. A result file holds any number of runs; one with the same settings
replaces the earlier.
"""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import click

from baldwhisper_mlx.config import Dtype
from baldwhisper_mlx.evaluation.hypotheses import fingerprint
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from benchmarks.accuracy.short_context_clips import (
    calibration_speech,
    clips,
    parse_noise,
    sounds,
)
from benchmarks.accuracy.short_context_lengths import clips_by_length
from benchmarks.accuracy.short_context_measure import (
    WorkFile,
    load_full,
    measure_missing,
    run_key,
)
from benchmarks.accuracy.short_context_summary import load_range, summarize
from benchmarks.accuracy.short_context_variants import FULL, Contexts, all_variants
from benchmarks.machines import SAMPLE, describe
from benchmarks.options import (
    Benchmark,
    data_option,
    language_option,
    models_option,
    named_model,
    numbers,
    numbers_or_zero,
    output_option,
)
from benchmarks.result_files import data_name, write_json


def with_run(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The content of a result file with one more run; it replaces one of the same settings."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []
    kept = [other for other in runs if other["settings"] != run["settings"]]
    return {"runs": [*kept, run]}


def report(run: dict[str, Any]) -> None:
    """Shows the word error rate of every variant."""
    for name, variants in run["models"].items():
        for variant, found in variants.items():
            low, high = (100 * bound for bound in found["difference_interval"])
            click.echo(
                f"{name}, {variant}: WER {100 * found['wer']:.2f} %, difference to full "
                f"{100 * found['difference']:+.2f} [{low:+.2f}, {high:+.2f}], "
                f"{found['sounds']['words']} words without speech"
            )


def context_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which audio contexts are compared."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    for option in (
        click.option(
            "--calibration-recordings",
            "recordings",
            type=numbers_or_zero,
            metavar="NUMBERS",
            help="How many of its recordings, the first ones; 0 for 30 s of zeros. Default: 6, or "
            "the demo's one.",
        ),
        click.option(
            "--calibration",
            type=folder,
            metavar="DIR",
            help="Folder of speech that the constants are made from. Default: the demo's.",
        ),
        click.option(
            "--tail",
            "tails",
            type=numbers,
            metavar="NUMBERS",
            default="100",
            show_default=True,
            help="Positions (20 ms) of constant final states behind the clip.",
        ),
        click.option(
            "--stride",
            "strides",
            type=numbers,
            metavar="NUMBERS",
            default="8",
            show_default=True,
            help="Positions that one constant key stands for.",
        ),
    ):
        function = option(function)
    return function


def compare(
    models: dict[str, Path],
    data: Sequence[Path],
    calibration: Path | None,
    settings: dict[str, Any],
    noise_at: str | None,
    work: WorkFile,
) -> dict[str, Any]:
    """Results of all models, by name.

    Args:
        models: names and folders.
        data: folders of speech.
        calibration: folder of speech; None for the demo's recording.
        settings: of the run.
        noise_at: as `with_noise` takes it; the settings name no path of the machine.
        work: measurements so far.
    """
    speech = calibration_speech(calibration, max(settings["recordings"]))
    how = [settings[key] for key in ("strides", "tails", "recordings", "cut_off")]
    variants = all_variants(*how)
    normalize = load_normalizer("whisper-english" if settings["language"] == "en" else "basic")
    results = {}
    for name, folder in models.items():
        if (number := settings["per_length"]) is None:
            spoken = clips(data, settings["limit"], noise_at)
        else:
            spoken = clips_by_length(data, settings["lengths"], number, noise_at)
        contexts = Contexts(load_full(folder, settings["dtype"]), speech)
        items = itertools.chain(spoken, sounds() if settings["sounds"] else ())
        measure_missing(contexts, name, variants, items, settings, work)
        rows = [row for row in work.rows if row["model"] == name]
        results[name] = summarize(rows, FULL.name, settings["lengths"], normalize)
    return results


@click.command(cls=Benchmark)
@models_option()
@data_option(multiple=True)
@click.option("--limit", type=click.IntRange(min=1), metavar="N",
              help="Only N clips of each folder, at equal steps over it.")  # fmt: skip
@click.option("--per-length", type=click.IntRange(min=1), metavar="N",
              help="Only N clips of each bin of length, of all folders together; where there are "
              "fewer, two clips of a speaker are joined.")  # fmt: skip
@click.option("--seconds", "lengths", type=numbers, metavar="NUMBERS", show_default=True,
              default="1,2,5,10,15,20,25",
              help="Upper ends of the bins of clip length in the results.")  # fmt: skip
@context_options
@click.option("--dtype", type=click.Choice(get_args(Dtype)), default="float32", show_default=True,
              help="Of the weights in memory.")  # fmt: skip
@click.option("--cut-off/--without-cut-off", default=True, show_default=True,
              help="Also measure the clip without constants.")  # fmt: skip
@click.option("--sounds/--without-sounds", default=True, show_default=True,
              help="Also transcribe silence, noise and tones.")  # fmt: skip
@click.option("--without-timestamps", is_flag=True, help="Decode text only.")
@click.option("--fallback", is_flag=True,
              help="Retry at rising temperatures where the result is repetitive or improbable, as "
              "`transcribe` does.")  # fmt: skip
@click.option("--noise", metavar="KIND=DB",
              help="Add noise at so many dB below the speech: pink=10. KIND is white, pink, tones "
              "(a synthetic melody) or a folder of recordings.")  # fmt: skip
@click.option("--work", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Transcripts so far. Default: the result file's name with .jsonl.")  # fmt: skip
@language_option
@output_option()
def main(
    models: Sequence[str],
    data: Sequence[Path],
    calibration: Path | None,
    recordings: tuple[int, ...] | None,
    without_timestamps: bool,
    work: Path | None,
    output: Path,
    **settings: Any,
) -> None:
    """Compare audio contexts on folders of speech and on sounds without speech."""
    if settings["limit"] and settings["per_length"]:
        raise click.UsageError("--limit and --per-length choose the clips: give one of them")
    noise_at = settings["noise"]
    if noise_at is not None and (folder := Path(parse_noise(noise_at)[0])).is_dir():
        settings["noise"] = f"{data_name(folder)}={noise_at.rpartition('=')[2]}"
    named = dict(map(named_model, models))
    settings |= {
        "models": {name: fingerprint(folder) for name, folder in named.items()},
        "data": [data_name(folder) for folder in data],
        "timestamps": not without_timestamps,
        "calibration": data_name(calibration) if calibration else SAMPLE.name,
        "recordings": recordings or ((6,) if calibration else (1,)),
    }
    settings = json.loads(json.dumps(settings))  # with lists, as they are read from a file
    work_file = WorkFile(work or output.with_suffix(".jsonl"), run_key(settings))
    results = compare(named, data, calibration, settings, noise_at, work_file)
    run = {
        "command": shlex.join(["python", "-m", "benchmarks.accuracy.short_context", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": describe(),
        "load": load_range(work_file.rows),
        "settings": settings,
        "models": results,
    }
    write_json(output, with_run(output, run))
    report(run)


if __name__ == "__main__":
    main()
