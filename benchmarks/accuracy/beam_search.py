"""What beam search gains and costs: word error rates and times for several numbers of beams.

Whole files with all other options at their defaults, the fallback to higher temperatures included;
1 stands for greedy decoding. Every clip is transcribed with each number in turn, in one process, so
the load of the machine falls on all of them alike. Every transcript is appended to a JSONL file in
--work, from which an interrupted run resumes when you rerun the command.

    python -m benchmarks.accuracy.beam_search --data FOLDER --model base=DIR --model bundled= \
        --beams 1,2,5 --limit 60 --work .cache/beams --out benchmarks/results/beam_search.json
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.bench.statistics import quartiles
from baldwhisper_mlx.checkpoint.files import find_model
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.evaluation.hypotheses import fingerprint
from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines
from benchmarks.accuracy.word_errors import rate_text, report
from benchmarks.machines import describe
from benchmarks.options import (
    Benchmark,
    data_option,
    limit_option,
    model_or_bundled,
    models_option,
    numbers,
    output_option,
)
from benchmarks.result_files import (
    check_settings,
    data_name,
    read_clips,
    spread,
    transcripts_file,
    write_json,
)

Row = dict[str, Any]


def transcribe_missing(
    models: dict[str, Path | None],
    beams: Sequence[int],
    clips: Sequence[Row],
    folder: Path,
    work: Path,
) -> None:
    """Transcribes the clips that the work file does not have yet, and appends them to it.

    Args:
        models: folders by name; None for the bundled one.
        beams: numbers of beams, 1 for greedy decoding.
        clips: rows of the folder's metadata.
        folder: of the speech.
        work: file of the transcripts.
    """
    check_settings(
        work.parent, {f"model {name}": fingerprint(find_model(m)) for name, m in models.items()}
    )
    done = {(row["model"], row["file_name"], row["beam_size"]) for row in read_json_lines(work)}
    for name, model in models.items():
        left = [
            clip for clip in clips if any((name, clip["file_name"], n) not in done for n in beams)
        ]
        if not left:
            continue
        loaded = baldwhisper_mlx.load_model(model)
        baldwhisper_mlx.transcribe(load_audio(folder / left[0]["file_name"]), loaded)  # warm-up
        for clip in tqdm(left, desc=name, unit="clip"):
            for size in beams:
                if (name, clip["file_name"], size) not in done:
                    row = {"model": name} | transcribed(folder, clip, loaded, size)
                    append_json_lines(work, [row])


def transcribed(folder: Path, clip: Row, loaded: baldwhisper_mlx.LoadedModel, size: int) -> Row:
    """The transcript of a clip, and the seconds that it took on the clock and on the processor."""
    samples = load_audio(folder / clip["file_name"])
    wall, cpu = time.perf_counter(), time.process_time()
    result = baldwhisper_mlx.transcribe(
        samples, loaded, language="en", beam_size=size if size > 1 else None
    )
    return {
        "file_name": clip["file_name"],
        "beam_size": size,
        "text": result.text.strip(),
        "seconds": round(time.perf_counter() - wall, 4),
        "cpu_seconds": round(time.process_time() - cpu, 4),
        "audio_seconds": round(len(samples) / SAMPLE_RATE, 3),
        "temperature": max((segment.temperature for segment in result.segments), default=0.0),
    }


def summary(clips: Sequence[Row], rows: Sequence[Row], beams: Sequence[int]) -> Row:
    """Word errors and times of one model, by the number of beams; the first is the baseline."""
    named = [row | {"model": str(row["beam_size"])} for row in rows]
    errors = report(clips, named, str(beams[0]))
    times = {
        size: {row["file_name"]: row for row in rows if row["beam_size"] == size} for size in beams
    }
    result: Row = {}
    for size in beams:
        pairs = [(row, times[beams[0]][name]) for name, row in times[size].items()]
        result[str(size)] = errors[str(size)] | {
            "seconds": round(sum(row["seconds"] for row, _ in pairs), 2),
            "cpu_seconds": round(sum(row["cpu_seconds"] for row, _ in pairs), 2),
            "time_ratio": quartiles([row["seconds"] / base["seconds"] for row, base in pairs]),
            "cpu_time_ratio": quartiles(
                [row["cpu_seconds"] / base["cpu_seconds"] for row, base in pairs]
            ),
            "fallbacks": sum(row["temperature"] > 0 for row, _ in pairs),
        }
    return result


@click.command(cls=Benchmark)
@data_option(multiple=True)
@models_option(bundled=True)
@click.option("--beams", default="1,2,5", show_default=True, metavar="N,N",
              help="Numbers of beams; 1 is greedy decoding. The others are compared with the "
                   "smallest.")  # fmt: skip
@click.option("--work", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of the transcripts so far.")  # fmt: skip
@output_option(name="--out")
@limit_option
def main(
    data: Sequence[Path],
    models: Sequence[str],
    beams: str,
    work: Path,
    output: Path,
    limit: int | None,
) -> None:
    """Measure word errors and times with beam search.

    --limit takes so many clips at equal steps over each folder.
    """
    named = dict(model_or_bundled(item) for item in models)
    sizes = numbers(beams)
    work.mkdir(parents=True, exist_ok=True)
    speech = []
    for folder in data:
        file = transcripts_file(work, folder)
        clips = spread(read_clips(folder), limit)
        transcribe_missing(named, sizes, clips, folder, file)
        wanted = {clip["file_name"] for clip in clips}
        rows = [
            row
            for row in read_json_lines(file)
            if row["file_name"] in wanted and row["beam_size"] in sizes
        ]
        lengths = {row["file_name"]: row["audio_seconds"] for row in rows}
        found = {
            name: summary(clips, [row for row in rows if row["model"] == name], sizes)
            for name in named
        }
        speech.append(
            {
                "data": data_name(folder),
                "clips": len(clips),
                "audio_seconds": round(sum(lengths.values()), 1),
                "models": found,
            }
        )
        show(speech[-1])
    settings = {"normalizer": "whisper EnglishTextNormalizer", "beams": list(sizes)}
    write_json(output, {"machine": describe()} | settings | {"speech": speech})


def show(part: Row) -> None:
    """Prints the rates and times on one folder of speech."""
    click.echo(f"{part['data']}, {part['clips']} clips")
    for name, sizes in part["models"].items():
        for size, row in sizes.items():
            click.echo(
                f"  {name:20} {size:>3} beams  {rate_text(row)} {row['wer_ratio_interval']}  "
                f"time {row['cpu_time_ratio']['median']:.2f}"
            )


if __name__ == "__main__":
    main()
