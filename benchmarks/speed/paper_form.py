"""Writes a model of the paper's form with random weights, to time forced tokens.

    python -m benchmarks.speed.paper_form TEACHER models/paper-form
    baldwhisper bench -p paper -p decode --student models/paper-form --teacher TEACHER

Three decoder layers and an embedding of rank 96, as in Sy et al., arXiv 2510.08599; all else is
the teacher's. The time of forced tokens does not depend on the weights; transcripts of the model
are meaningless.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.config import CONFIG_FILE, VOCABULARY_FILE, WEIGHTS_FILE
from benchmarks.options import Benchmark


@click.command(cls=Benchmark)
@click.argument("teacher", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--layers", default=3, show_default=True, help="Decoder layers.")
@click.option("--rank", default=96, show_default=True, help="Rank of the embedding.")
def main(teacher: Path, folder: Path, layers: int, rank: int) -> None:
    """Write FOLDER: the exported model TEACHER with fewer layers and a factorized embedding."""
    if folder.exists():
        raise click.UsageError(f"{folder}: exists; name a new folder")

    import mlx.core as mx
    from mlx.utils import tree_flatten

    from baldwhisper_mlx.config import ModelConfig
    from baldwhisper_mlx.model.whisper import Whisper

    config = dataclasses.replace(
        ModelConfig.from_file(teacher / CONFIG_FILE),
        n_text_layer=layers,
        embedding_rank=rank,
        alignment_heads=(),
    )
    parameters: Any = tree_flatten(Whisper(config).parameters())
    weights = {
        name: (0.02 * mx.random.normal(value.shape)).astype(getattr(mx, config.dtype))
        for name, value in parameters
    }
    folder.mkdir(parents=True)
    shutil.copy(teacher / VOCABULARY_FILE, folder / VOCABULARY_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=2), encoding="utf-8")
    mx.save_safetensors(str(folder / WEIGHTS_FILE), weights)
    click.echo(f"{folder}: {sum(value.size for value in weights.values()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
