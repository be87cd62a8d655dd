"""The commands `prepare`, `search`, `align` and `run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_convert.cli.errors import one_line_errors, say
from baldwhisper_convert.cli.options import FOLDER, changes_option, data_option

if TYPE_CHECKING:
    from baldwhisper_convert.data.prepared import Prepared
    from baldwhisper_convert.pipeline.recipe import Recipe


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--data", multiple=True, required=True, metavar="FOLDER_FILE_OR_HUB_ID",
              help="Transcribed speech: a folder, a CSV, TSV, JSON or JSONL file, parquet or tar "
              "files, or a Hugging Face dataset. Repeatable. With --set labels=none, "
              "transcripts are not needed.")  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Split of the dataset.")
@click.option("--text-column", default="text", show_default=True,
              help="Column of transcripts. If there is no text, the default also finds sentence, "
              "transcription, transcript and the like.")  # fmt: skip
@click.option("--audio-column", default="audio", show_default=True, help="Column of audio.")
@click.option("--streaming", is_flag=True,
              help="Read a Hub dataset while it is downloaded, without storing it.")  # fmt: skip
@click.option("--skip-bad", is_flag=True,
              help="Skip utterances that cannot be used, and name each of them.")  # fmt: skip
@click.option("--device", default="auto", show_default=True,
              help="PyTorch device that the teacher runs on: cpu, mps, cuda, or the best that "
              "there is.")  # fmt: skip
@click.option("--shard", metavar="I/N",
              help="Prepare the I-th of N shards only, for machines that share nothing but the "
              "disk of DST. When all are done, the same command without --shard completes "
              "DST.")  # fmt: skip
@changes_option
def prepare(
    source: str,
    destination: Path,
    data: Sequence[str],
    split: str,
    text_column: str,
    audio_column: str,
    streaming: bool,
    skip_bad: bool,
    device: str,
    shard: str | None,
    changes: Sequence[str],
) -> None:
    """Prepare speech for training.

    Cuts speech into windows and stores their labels and the encoder states of the teacher SRC
    in the folder DST, which the other commands read with --data and --dev. If a run is
    interrupted, run the same command again to resume it. torchrun or `accelerate launch` starts
    it in several processes, which share the work. Settings (--set):
    labels=text|teacher|none, features=states|mel, audio_context=full|dynamic, passes, max_wer,
    language, language_tokens=window|turns, seed, windows.*, augmentation.*
    """
    with one_line_errors():
        from baldwhisper_convert.data import prepare as preparing
        from baldwhisper_convert.data import utterances as reading
        from baldwhisper_convert.data.clips import Reading
        from baldwhisper_convert.data.pieces import Shard
        from baldwhisper_convert.data.prepare_settings import PrepareSettings
        from baldwhisper_convert.pipeline.settings import override
        from baldwhisper_convert.processes import Processes
        from baldwhisper_convert.readers.read import read_checkpoint
        from baldwhisper_mlx.audio.speech_columns import say_nothing

        settings = override(PrepareSettings(), changes)
        part = Shard.parse(shard) if shard else None
        teacher, main = read_checkpoint(source), Processes.start().main
        tell = say if main else say_nothing
        bad = reading.BadRows(allowed=skip_bad, say=tell)
        columns = {"text_column": settings.text_from(text_column), "audio_column": audio_column}
        how: dict[str, Any] = {"split": split, "streaming": streaming, **columns}
        utterances = Reading(partial(reading.read_all, data, **how), bad, tell)
        if part:
            preparing.prepare_shard(
                teacher, utterances, settings, destination, part, bad=bad, device=device
            )
            if main:
                say(f"{destination}: shard {shard} is done; bad utterances: {bad}")
            return
        prepared = preparing.prepare(
            teacher, utterances, settings, destination, bad=bad, device=device
        )
        if main:
            _report(prepared)


def _report(prepared: Prepared) -> None:
    """Says what was prepared."""
    hours = sum(window.duration for window in prepared.windows) / 3600
    report = prepared.settings["report"]
    say(
        f"{prepared.folder}: {len(prepared)} windows, {hours:.2f} h; bad utterances: "
        f"{report['bad']}; windows left out: {report['dropped']}"
    )


@click.command()
@click.argument("teacher", metavar="TEACHER")
@click.argument("destination", metavar="DST", type=FOLDER)
@data_option("Prepared training data of the trials.")
@click.option("--dev", required=True, metavar="PREPARED[:SHARE]",
              help="Prepared development data that the trials are scored on.")  # fmt: skip
@click.option("--trials", default=30, show_default=True, help="Number of trials.")
@changes_option
def search(
    teacher: str,
    destination: Path,
    data: Sequence[str],
    dev: str,
    trials: int,
    changes: Sequence[str],
) -> None:
    """Search for the best weights to merge decoder layers with.

    Each trial merges the layers of TEACHER with other weights alpha and beta, trains the
    student briefly and measures its word error rate; Ax (install the extra `search`) proposes
    the weights. DST gets trials.json and a contour plot. If a search is interrupted, run the
    same command again to resume it; more --trials extend it. Use a share of the data to shorten
    trials: --data prepared/train:0.3 --dev prepared/dev:0.6. Settings (--set): training.*,
    loss.*, merge.groups, seed
    """
    with one_line_errors():
        from baldwhisper_convert.data.speech import open_speech
        from baldwhisper_convert.pipeline.search import SearchSettings
        from baldwhisper_convert.pipeline.search import search as run
        from baldwhisper_convert.pipeline.settings import override
        from baldwhisper_convert.readers.read import read_checkpoint

        settings = override(SearchSettings(trials=trials), changes)
        best = run(
            read_checkpoint(teacher), settings, open_speech(data), open_speech([dev]), destination,
            say=say,
        )  # fmt: skip
        say(
            f"{destination}: best alpha {best['alpha']:.3f}, beta {best['beta']:.3f}: "
            f"WER {100 * best['wer']:.2f} %"
        )


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option("Prepared speech to score the heads on.")
@click.option("--windows", default=120, show_default=True, help="Number of windows to use.")
@click.option("--most", default=6, show_default=True, help="Maximum number of heads to choose.")
@click.option("--least", default=0.6, show_default=True,
              help="Minimum score of a chosen head, as a share of the best score.")  # fmt: skip
@click.option("--print-only", is_flag=True, help="Print the heads and do not change MODEL.")
def align(
    model: Path,
    data: Sequence[str],
    windows: int,
    most: int,
    least: float,
    print_only: bool,
) -> None:
    """Choose the attention heads for word timestamps.

    Chooses the cross-attention heads that follow the audio best and writes them to
    `config.json` of MODEL, a model folder. Use it after merging or training layers, which
    changes the heads.
    """
    with one_line_errors():
        from baldwhisper_convert.compression import alignment_heads as alignment
        from baldwhisper_convert.data.speech import open_speech, sample
        from baldwhisper_convert.model.prompts import Prompts
        from baldwhisper_convert.model.whisper import Whisper
        from baldwhisper_convert.readers.read import read_checkpoint

        checkpoint = read_checkpoint(model)
        speech = open_speech(data).windows
        prompts = Prompts.of(checkpoint, speech.language)
        batches = sample(speech, prompts, windows, timestamps=1.0)
        scores = alignment.score_heads(Whisper.from_checkpoint(checkpoint), batches, prompts.end)
        heads = alignment.choose_heads(scores, most, least)
        for head in sorted(scores, key=lambda one: -scores[one])[: 2 * most]:
            mark = ">" if head in heads else " "
            say(f"{mark} layer {head[0]}, head {head[1]}: {scores[head]:.3f}")
        if not print_only:
            alignment.write_heads(model, heads)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--output", type=FOLDER, default=Path("runs"), show_default=True,
              help="Folder for the prepared data and the stage folders.")  # fmt: skip
@click.option("--data", multiple=True, metavar="NAME=SOURCE",
              help="Replaces the source of the recipe's data NAME; repeatable.")  # fmt: skip
@click.option("--text", multiple=True, metavar="NAME=FILE",
              help="Replaces the file of the recipe's text NAME; repeatable.")  # fmt: skip
@click.option("--noise", metavar="FOLDER",
              help="Replaces the recipe's folders of recorded noise.")  # fmt: skip
@click.option("--teacher", metavar="MODEL", help="Replaces the recipe's teacher.")
@click.option("--skip-bad", is_flag=True,
              help="Skip utterances that cannot be used, and name each of them.")  # fmt: skip
@click.option("--force", is_flag=True,
              help="Replace stage folders that were made with other settings.")  # fmt: skip
@click.option("--clean", type=click.Choice(["list", "delete"]),
              help="Run nothing; list or delete what the output folder holds that no run of the "
              "recipe reads: stages, data and trainings of other settings, and weights of "
              "trainings whose stage is written.")  # fmt: skip
def run(
    recipe: Path,
    output: Path,
    data: Sequence[str],
    text: Sequence[str],
    noise: str | None,
    teacher: str | None,
    skip_bad: bool,
    force: bool,
    clean: str | None,
) -> None:
    """Run all stages of a recipe.

    RECIPE is a TOML file. Stages run in its order; finished stages are skipped.
    """
    with one_line_errors():
        from baldwhisper_convert.pipeline.recipe import read_recipe
        from baldwhisper_convert.pipeline.run import Pipeline

        plan = read_recipe(recipe)
        if teacher:
            plan = dataclasses.replace(plan, teacher=teacher)
        if clean:
            _clean(plan, output, delete=clean == "delete")
            return
        pipeline = Pipeline(
            plan,
            output,
            sources=_pairs("--data", data),
            texts=_pairs("--text", text),
            noise=noise,
            skip_bad=skip_bad,
            force=force,
            say=say,
        )
        last = pipeline.run()
        pipeline.say(f"{last}: finished")


def _clean(recipe: Recipe, output: Path, *, delete: bool) -> None:
    """Lists, and on request deletes, what no run of the recipe reads."""
    from baldwhisper_convert.locks import check_single_process, lock_folder
    from baldwhisper_convert.pipeline.run_folders import leftovers

    check_single_process("run --clean")
    if not output.is_dir():
        raise FileNotFoundError(f"{output}: no such folder")
    with lock_folder(output, "runs a recipe"):
        found = leftovers(recipe, output)
        for item in found:
            say(f"{item.path}: {item.reason}, {item.size / 1e6:.1f} MB")
            if delete:
                item.delete()
    size = sum(item.size for item in found)
    done = "deleted" if delete else "can be deleted with --clean delete"
    say(
        f"{len(found)} files and folders, {size / 1e6:.1f} MB {done}"
        if found
        else "nothing to delete"
    )


def _pairs(option: str, items: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE options as a dict."""
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise click.UsageError(f"{option} {item}: expected NAME=VALUE, but there is no =")
        pairs[name] = value
    return pairs
