"""The commands `prepare`, `search`, `align` and `run`, which `cli.py` adds to the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click

from baldwhisper_convert.cli.errors import one_line_errors
from baldwhisper_convert.cli.options import FOLDER, changes_option, data_option


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--data", multiple=True, required=True, metavar="FOLDER_LIST_OR_HUB_ID",
              help="Labelled speech; repeatable.")  # fmt: skip
@click.option("--split", default="train", show_default=True)
@click.option("--text-column", default="text", show_default=True)
@click.option("--audio-column", default="audio", show_default=True)
@click.option("--streaming", is_flag=True, help="Read a hub dataset without downloading it whole.")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be used, and count it.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
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
    changes: Sequence[str],
) -> None:
    """Make windows, labels and encoder states of speech, with the teacher SRC, in DST.

    Settings (--set): labels=text|teacher, features=states|mel, audio_context=full|dynamic, passes,
    max_wer, language, seed, windows.*, augmentation.*. An interrupted run goes on where it stopped.
    """
    with one_line_errors():
        from baldwhisper_convert.data import utterances as reading
        from baldwhisper_convert.data.prepare import PrepareSettings
        from baldwhisper_convert.data.prepare import prepare as run
        from baldwhisper_convert.pipeline.settings import override
        from baldwhisper_convert.readers.read import read_checkpoint

        settings = override(PrepareSettings(), changes)
        bad = reading.BadRows(allowed=skip_bad)
        utterances = [
            utterance
            for item in data
            for utterance in reading.read_utterances(
                item, split=split, text_column=text_column, audio_column=audio_column,
                streaming=streaming, bad=bad,
            )
        ]  # fmt: skip
        found = run(
            read_checkpoint(source), utterances, settings, destination, bad=bad, device=device
        )
        hours = sum(window.duration for window in found.windows) / 3600
        report = found.settings["report"]
        click.echo(
            f"{destination}: {len(found)} windows, {hours:.2f} h; bad utterances: "
            f"{report['bad']}; windows left out: {report['dropped']}"
        )


@click.command()
@click.argument("teacher", metavar="TEACHER")
@click.argument("destination", metavar="DST", type=FOLDER)
@data_option("Prepared speech that each trial is trained on; repeatable.")
@click.option("--dev", required=True, metavar="PREPARED[:SHARE]",
              help="Prepared development data that each trial is scored on.")  # fmt: skip
@click.option("--trials", default=30, show_default=True)
@changes_option
def search(
    teacher: str,
    destination: Path,
    data: Sequence[str],
    dev: str,
    trials: int,
    changes: Sequence[str],
) -> None:
    """Find the alpha and beta to merge layers of TEACHER with, by training a student for each.

    Ax (the extra `search`) proposes them. DST gets trials.json, with every trial, and a contour
    plot; an interrupted search goes on with the same command, and one with more --trials adds
    some. A share of the data keeps a trial short: --data prepared/train:0.3 --dev
    prepared/dev:0.6. Settings (--set): training.*, loss.*, merge.groups, seed.
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
            say=click.echo,
        )  # fmt: skip
        click.echo(
            f"{destination}: best alpha {best['alpha']:.3f}, beta {best['beta']:.3f}: "
            f"WER {100 * best['wer']:.2f} %"
        )


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option("Prepared speech to find them on; repeatable.")
@click.option("--windows", default=120, show_default=True, help="Of speech to look at.")
@click.option("--most", default=6, show_default=True, help="Heads to choose at most.")
@click.option("--least", default=0.6, show_default=True,
              help="Share of the best head's score that others must reach.")  # fmt: skip
@click.option("--print-only", is_flag=True, help="Leave the model as it is.")
def align(
    model: Path,
    data: Sequence[str],
    windows: int,
    most: int,
    least: float,
    print_only: bool,
) -> None:
    """Find the attention heads of MODEL, a model folder, that follow the audio.

    Word timestamps are made of them. They are written into MODEL's config.json; a model whose
    layers were merged or trained anew has others than its teacher.
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
            click.echo(f"{mark} layer {head[0]}, head {head[1]}: {scores[head]:.3f}")
        if not print_only:
            alignment.write_heads(model, heads)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--output", type=FOLDER, default=Path("runs"), show_default=True)
@click.option("--data", multiple=True, metavar="NAME=SOURCE",
              help="Another source for the recipe's data of that name; repeatable.")  # fmt: skip
@click.option("--text", multiple=True, metavar="NAME=FILE",
              help="Another file for the recipe's text of that name; repeatable.")  # fmt: skip
@click.option("--teacher", help="Another teacher than the recipe's.")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be used, and count it.")
@click.option("--force", is_flag=True, help="Replace stage folders made with other settings.")
def run(
    recipe: Path,
    output: Path,
    data: Sequence[str],
    text: Sequence[str],
    teacher: str | None,
    skip_bad: bool,
    force: bool,
) -> None:
    """Run all stages of RECIPE in order, skipping those that are done."""
    with one_line_errors():
        from baldwhisper_convert.pipeline.recipe import read_recipe
        from baldwhisper_convert.pipeline.run import Pipeline

        plan = read_recipe(recipe)
        if teacher:
            plan = dataclasses.replace(plan, teacher=teacher)
        pipeline = Pipeline(
            plan,
            output,
            sources=_pairs("--data", data),
            texts=_pairs("--text", text),
            skip_bad=skip_bad,
            force=force,
            say=click.echo,
        )
        click.echo(f"{pipeline.run()}: finished")


def _pairs(option: str, items: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE options as a dict."""
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise click.UsageError(f"{option} {item}: expected NAME=VALUE")
        pairs[name] = value
    return pairs
