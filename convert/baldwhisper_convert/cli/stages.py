"""The stages as commands; `cli.py` adds them to `baldwhisper-convert`.

Options are those one changes often; `--set KEY=VALUE` reaches every setting of a recipe's
section by the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_convert.cli.errors import one_line_errors
from baldwhisper_convert.cli.options import (
    FOLDER,
    changes_option,
    data_option,
    dev_option,
    force_option,
)

if TYPE_CHECKING:
    from baldwhisper_convert.pipeline.recipe import StageRecipe


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@data_option("Prepared labelled speech; repeatable.")
@dev_option
@changes_option
@force_option
def finetune(
    source: str,
    destination: Path,
    data: Sequence[str],
    dev: str | None,
    changes: Sequence[str],
    force: bool,
) -> None:
    """Train the model SRC on labelled speech; writes the stage folder DST.

    Settings (--set): training.*
    """
    with one_line_errors():
        from baldwhisper_convert.pipeline.recipe import StageRecipe, finetuning

        stage = StageRecipe(stage="finetune", training=finetuning(), data=tuple(data))
        _run(stage, changes, source, destination, force, dev)


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--method", default="merge", show_default=True,
              help="merge, upper, lower, even, random, keep or search.")  # fmt: skip
@click.option("--alpha", default=0.1, show_default=True, help="Weight of the lower layer.")
@click.option("--beta", default=1.0, show_default=True, help="Weight of the upper layer.")
@click.option("--keep", help="Layers to keep, such as 0,1,4,5; implies --method keep.")
@click.option("--layers", default=0, help="Layers that even, random and search keep; half if 0.")
@data_option("Prepared speech to measure the choices on.", required=False)
@changes_option
@force_option
def merge(
    source: str,
    destination: Path,
    method: str,
    alpha: float,
    beta: float,
    keep: str | None,
    layers: int,
    data: Sequence[str],
    changes: Sequence[str],
    force: bool,
) -> None:
    """Make a decoder of fewer layers of the model SRC; writes the stage folder DST.

    Given speech, prints how similar the layers are and how each choice starts. Settings (--set):
    merge.*, speech.
    """
    with one_line_errors():
        from baldwhisper_convert.compression.merge import MergeSettings, choices_table
        from baldwhisper_convert.pipeline.recipe import StageRecipe
        from baldwhisper_convert.pipeline.settings import build

        kept = [int(layer) for layer in keep.split(",")] if keep else []
        raw = {"method": "keep" if kept else method, "alpha": alpha, "beta": beta}
        settings = build(MergeSettings, raw | {"layers": layers, "keep": kept}, "options")
        stage = StageRecipe(stage="merge", merge=settings, data=tuple(data))
        metrics = _run(stage, changes, source, destination, force)
        if metrics.get("choices"):
            click.echo(choices_table(metrics))


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--rank", default=96, show_default=True)
@click.option(
    "--init", default="joint", show_default=True, help="joint, svd (the paper's) or random."
)
@click.option("--dense-rows", default=0, show_default=True, help="Frequent tokens kept.")
@click.option(
    "--teacher", metavar="MODEL", help="Whose embedding to start from, if SRC has factors."
)
@click.option("--text", "texts", multiple=True, metavar="FILE", type=FOLDER,
              help="Text whose tokens count too, plain or JSONL; repeatable.")  # fmt: skip
@data_option("Prepared speech to calibrate on.")
@dev_option
@changes_option
@force_option
def factorize(
    source: str,
    destination: Path,
    rank: int,
    init: str,
    dense_rows: int,
    teacher: str | None,
    texts: Sequence[Path],
    data: Sequence[str],
    dev: str | None,
    changes: Sequence[str],
    force: bool,
) -> None:
    """Factorize the token embedding of the model SRC; writes the stage folder DST.

    Settings (--set): factorize.*, speech.
    """
    with one_line_errors():
        from baldwhisper_convert.compression.factorize import FactorizeSettings
        from baldwhisper_convert.pipeline.recipe import StageRecipe
        from baldwhisper_convert.pipeline.settings import build

        raw = {"rank": rank, "init": init, "dense_rows": dense_rows}
        settings = build(FactorizeSettings, raw, "options")
        stage = StageRecipe(
            stage="factorize",
            factorize=settings,
            data=tuple(data),
            texts=tuple(str(path) for path in texts),
        )
        _run(stage, changes, source, destination, force, dev, teacher)


@click.command()
@click.argument("source", metavar="STUDENT")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--teacher", required=True, metavar="MODEL", help="What the student learns from.")
@data_option("Prepared speech; repeatable.")
@dev_option
@changes_option
@force_option
def distill(
    source: str,
    destination: Path,
    teacher: str,
    data: Sequence[str],
    dev: str | None,
    changes: Sequence[str],
    force: bool,
) -> None:
    """Train STUDENT against its teacher; writes the stage folder DST.

    Settings (--set): training.*, loss.*. An interrupted run goes on where it stopped; start it
    with `accelerate launch -m baldwhisper_convert.cli distill ...` for several processes.
    """
    with one_line_errors():
        from baldwhisper_convert.pipeline.recipe import StageRecipe
        from baldwhisper_convert.training.objectives import LossSettings
        from baldwhisper_convert.training.settings import TrainingSettings

        stage = StageRecipe(
            stage="distill", training=TrainingSettings(), loss=LossSettings(), data=tuple(data)
        )
        _run(stage, changes, source, destination, force, dev, teacher)


def _run(
    stage: StageRecipe,
    changes: Sequence[str],
    source: str,
    destination: Path,
    force: bool,
    dev: str | None = None,
    teacher: str | None = None,
) -> dict[str, Any]:
    """Reads the model and its data, does the stage, saves its folder; the metrics."""
    from baldwhisper_convert.data.speech import open_speech
    from baldwhisper_convert.export.destination import check_destination
    from baldwhisper_convert.pipeline import stages
    from baldwhisper_convert.pipeline.manifest import teacher_layers
    from baldwhisper_convert.pipeline.settings import override
    from baldwhisper_convert.readers.read import read_checkpoint

    stage = override(stage, changes)
    check_destination(destination, source, force=force)
    checkpoint = read_checkpoint(source)
    groups = teacher_layers(Path(source), checkpoint.dims.n_text_layer)
    _, metrics = stages.perform(
        stage,
        stages.Model(checkpoint=checkpoint, groups=groups),
        destination,
        destination.with_name(f"{destination.name}.runs"),
        teacher=read_checkpoint(teacher) if teacher else None,
        speech=open_speech(stage.data, [Path(text) for text in stage.texts])
        if stage.data
        else None,
        dev=open_speech([dev]) if dev else None,
    )
    click.echo(f"{destination}: {stages.describe(metrics) or 'done'}")
    return metrics
