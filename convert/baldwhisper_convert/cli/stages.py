"""The stages of compression as commands: `finetune`, `merge`, `factorize`, `distill`.

Settings that change often have options; `--set KEY=VALUE` reaches all settings, under their names
in recipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_convert.cli.errors import one_line_errors, say
from baldwhisper_convert.cli.options import (
    FOLDER,
    changes_option,
    data_option,
    dev_option,
    force_option,
)

if TYPE_CHECKING:
    from baldwhisper_convert.pipeline.manifest import Manifest
    from baldwhisper_convert.pipeline.recipe import StageRecipe


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@data_option("Prepared training data with transcripts as labels.")
@dev_option
@changes_option
@force_option
def finetune(
    source: str,
    destination: Path,
    data: Sequence[str],
    dev: Sequence[str],
    changes: Sequence[str],
    force: bool,
) -> None:
    """Train a model on transcribed speech.

    Reads the model SRC and writes the trained model to the folder DST. If a run is interrupted,
    run the same command again to resume it. Settings (--set): training.*
    """
    with one_line_errors():
        from baldwhisper_convert.pipeline.recipe import StageRecipe, finetuning

        stage = StageRecipe(stage="finetune", training=finetuning(), data=tuple(data))
        _run(stage, changes, source, destination, force, dev)


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--part", type=click.Choice(["decoder", "encoder"]), default="decoder",
              show_default=True, help="Part of the model that gets fewer layers.")  # fmt: skip
@click.option("--method", default="merge", show_default=True,
              help="merge: weighted sums of adjacent layers. upper, lower: the upper or lower "
              "layer of each pair. even, random: --layers layers, evenly spaced or random. keep: "
              "the layers of --keep. search: the --layers layers with the smallest KL divergence "
              "from SRC on --data. Without text, an encoder's states are compared.")  # fmt: skip
@click.option("--alpha", default=0.1, show_default=True, help="Weight of the lower layer.")
@click.option("--beta", default=1.0, show_default=True, help="Weight of the upper layer.")
@click.option("--keep", metavar="LAYERS",
              help="Layers to keep, such as 0,1,4,5; implies --method keep.")  # fmt: skip
@click.option("--layers", default=0, show_default="half",
              help="Number of layers that even, random and search keep.")  # fmt: skip
@data_option("Prepared speech to compare the methods on.", required=False)
@changes_option
@force_option
def merge(
    source: str,
    destination: Path,
    part: str,
    method: str,
    alpha: float,
    beta: float,
    keep: str | None,
    layers: int,
    data: Sequence[str],
    changes: Sequence[str],
    force: bool,
) -> None:
    """Reduce the number of decoder or encoder layers of a model.

    Reads the model SRC and writes the smaller one to the folder DST. With --data, also measures
    how similar the layers are and how far each method's result is from SRC before training, and
    prints a table; for the encoder, the data must be log-mel (features=mel). Settings (--set):
    merge.*, speech
    """
    with one_line_errors():
        from baldwhisper_convert.compression.merge import MergeSettings, choices_table
        from baldwhisper_convert.pipeline.recipe import StageRecipe
        from baldwhisper_convert.pipeline.settings import build

        kept = _layers(keep) if keep else []
        raw = {"part": part, "method": "keep" if kept else method, "alpha": alpha, "beta": beta}
        settings = build(MergeSettings, raw | {"layers": layers, "keep": kept}, "options")
        stage = StageRecipe(stage="merge", merge=settings, data=tuple(data))
        metrics = _run(stage, changes, source, destination, force)
        if metrics.get("choices"):
            say(choices_table(metrics))


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--rank", default=96, show_default=True, help="Rank of the factors.")
@click.option(
    "--init", default="joint", show_default=True,
    help="joint: fitted to the token frequencies and decoder states of --data. svd: truncated "
    "SVD, as in the paper. random: random factors, for comparison.",
)  # fmt: skip
@click.option("--dense-rows", default=0, show_default=True,
              help="Number of frequent tokens whose rows stay dense.")  # fmt: skip
@click.option(
    "--teacher", metavar="MODEL",
    help="Model whose dense embedding is factorized, if SRC is factorized already.",
)  # fmt: skip
@click.option(
    "--text", "texts", multiple=True, metavar="FILE", type=FOLDER,
    help="Text file, plain or JSONL, whose tokens are counted besides those of --data; repeatable.",
)  # fmt: skip
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
    dev: Sequence[str],
    changes: Sequence[str],
    force: bool,
) -> None:
    """Factorize the token embedding of a model.

    Reads the model SRC and writes the smaller one to the folder DST. Settings (--set):
    factorize.*, speech
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
@click.option("--teacher", required=True, metavar="MODEL", help="Model to learn from.")
@data_option("Prepared training data.")
@dev_option
@changes_option
@force_option
def distill(
    source: str,
    destination: Path,
    teacher: str,
    data: Sequence[str],
    dev: Sequence[str],
    changes: Sequence[str],
    force: bool,
) -> None:
    """Train a student on the predictions of its teacher.

    Reads the model STUDENT and writes the trained model to the folder DST. If a run is
    interrupted, run the same command again to resume it. To train in several processes, start
    it with `accelerate launch -m baldwhisper_convert.cli distill ...`. Settings (--set):
    training.*, loss.*
    """
    with one_line_errors():
        from baldwhisper_convert.pipeline.recipe import StageRecipe
        from baldwhisper_convert.training.objectives import LossSettings
        from baldwhisper_convert.training.settings import TrainingSettings

        stage = StageRecipe(
            stage="distill", training=TrainingSettings(), loss=LossSettings(), data=tuple(data)
        )
        _run(stage, changes, source, destination, force, dev, teacher)


def _layers(text: str) -> list[int]:
    """Layer numbers from `0,1,4,5`."""
    try:
        return [int(layer) for layer in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--keep {text}: expected numbers such as 0,1,4,5") from None


def _run(
    stage: StageRecipe,
    changes: Sequence[str],
    source: str,
    destination: Path,
    force: bool,
    dev: Sequence[str] = (),
    teacher: str | None = None,
) -> dict[str, Any]:
    """Reads the model and its data, runs the stage, writes its folder and returns the metrics."""
    from baldwhisper_convert.data.speech import open_speech
    from baldwhisper_convert.pipeline import stages
    from baldwhisper_convert.pipeline.manifest import other_work
    from baldwhisper_convert.pipeline.model import Model
    from baldwhisper_convert.pipeline.settings import override
    from baldwhisper_convert.processes import Processes
    from baldwhisper_convert.readers.read import read_checkpoint
    from baldwhisper_mlx.audio.speech_columns import say_nothing

    stage = override(stage, changes)
    processes = Processes.start()
    tell = say if processes.main else say_nothing
    read = [source] if teacher is None else [source, teacher]
    made = _made(destination, read, force=force) if processes.main else None
    processes.wait()
    model = Model.of(read_checkpoint(source), Path(source))
    taught_by = read_checkpoint(teacher) if teacher else None
    texts = [Path(text) for text in stage.texts]
    speech = open_speech(stage.data, texts) if stage.data else None
    development = open_speech(dev) if dev else None
    plan = stages.plan_manifest(stage, model, taught_by, speech, development)
    if made is not None and not made.same_work(plan):
        raise FileExistsError(other_work(destination, made.differences(plan)))
    known = processes.agree(made.metrics if made is not None else None)
    if known is not None:
        tell(f"{destination}: done already")
        return known
    _, metrics = stages.perform(
        stage, model, destination, destination.with_name(f"{destination.name}.runs"),
        teacher=taught_by, speech=speech, dev=development, say=tell,
    )  # fmt: skip
    tell(f"{destination}: {stages.describe(metrics) or 'done'}")
    return metrics


def _made(destination: Path, sources: Sequence[str], *, force: bool) -> Manifest | None:
    """The manifest of the stage that a folder has already; None if it may be replaced.

    Args:
        destination: the folder.
        sources: the models that the stage reads, which the folder must not contain.
        force: whether to replace it.

    Raises:
        FileExistsError: the folder is no stage, and `force` is not set.
    """
    from baldwhisper_convert.export.destination import check_destination
    from baldwhisper_convert.pipeline.manifest import read_manifest
    from baldwhisper_mlx.files import restore_folder

    restore_folder(destination.resolve())  # of a command that was killed while it replaced it
    made = read_manifest(destination) if destination.is_dir() and not force else None
    if made is None:
        for source in sources:
            check_destination(destination, source, force=force)
    return made
