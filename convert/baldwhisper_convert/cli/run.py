"""The commands `search`, `align` and `run`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from baldwhisper_convert.cli.errors import one_line_errors, say
from baldwhisper_convert.cli.options import FOLDER, changes_option, data_option
from baldwhisper_mlx.terminal import printable

if TYPE_CHECKING:
    from baldwhisper_convert.pipeline.recipe import Recipe
    from baldwhisper_convert.pipeline.run import Pipeline


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
@click.option("--start", metavar="MODEL",
              help="Replaces the recipe's start: a model that was fine-tuned from the teacher, "
              "from which the stages start.")  # fmt: skip
@click.option("--skip-bad", is_flag=True,
              help="Skip utterances that cannot be used, and name each of them.")  # fmt: skip
@click.option("--force", is_flag=True,
              help="Replace stage folders that were made with other settings.")  # fmt: skip
@click.option("--clean", type=click.Choice(["list", "delete"]),
              help="Run nothing; list or delete what the output folder holds that no run of the "
              "recipe reads: stages, data and trainings of other settings, and weights of "
              "trainings whose stage is written.")  # fmt: skip
@click.option("--dry-run", "only_plan", is_flag=True,
              help="Check the recipe, measure a few steps of each stage on this machine, and print "
              "what the run would take; nothing is written to the output.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
def run(
    recipe: Path,
    output: Path,
    data: Sequence[str],
    text: Sequence[str],
    noise: str | None,
    teacher: str | None,
    start: str | None,
    skip_bad: bool,
    force: bool,
    clean: str | None,
    only_plan: bool,
    as_json: bool,
) -> None:
    """Run all stages of a recipe.

    RECIPE is a TOML file. Stages run in its order; finished stages are skipped. The whole recipe
    is checked against the teacher and the data before the first stage.
    """
    if as_json and not only_plan:
        raise click.UsageError("--json needs --dry-run")
    with one_line_errors():
        from baldwhisper_convert.pipeline.recipe import read_recipe
        from baldwhisper_convert.pipeline.run import Pipeline

        plan = read_recipe(recipe)
        plan = dataclasses.replace(plan, teacher=teacher or plan.teacher, start=start or plan.start)
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
            say=partial(click.echo, err=True) if only_plan else say,
        )
        if only_plan:
            _dry_run(pipeline, as_json=as_json)
            return
        last = pipeline.run()
        pipeline.say(f"{last}: finished")


def _dry_run(pipeline: Pipeline, *, as_json: bool) -> None:
    """Prints what a run would take."""
    from baldwhisper_convert.pipeline import dry_run

    rows = pipeline.dry_run()
    say(json.dumps(dry_run.report(rows), indent=2) if as_json else dry_run.table(rows))
    if lacking := dry_run.lacking_space(rows, pipeline.output):
        click.echo(f"Warning: {printable(lacking)}", err=True)


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
