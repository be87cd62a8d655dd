"""The command `average`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from baldwhisper_convert.cli.errors import one_line_errors, say
from baldwhisper_convert.cli.options import FOLDER, force_option


@click.command()
@click.argument("models", metavar="MODEL[:SHARE]...", nargs=-1, required=True)
@click.argument("destination", metavar="DST", type=FOLDER)
@force_option
def average(models: Sequence[str], destination: Path, force: bool) -> None:
    """Average the weights of models that were trained from the same one.

    Writes the mean of two or more models to the folder DST. The average of several fine-tunings
    often has fewer errors than each of them; a share of the model before the fine-tuning gives
    back some of what was forgotten. Evaluate a few shares on development data. Example:
    average tuned-1:0.45 tuned-2:0.45 openai/whisper-base:0.1 averaged
    """
    with one_line_errors():
        from baldwhisper_convert.checkpoint import average as averages
        from baldwhisper_convert.data.speech import parse_shares
        from baldwhisper_convert.export.destination import check_destination
        from baldwhisper_convert.export.mlx import export_mlx
        from baldwhisper_convert.readers.read import read_checkpoint

        named = parse_shares(models)
        shares = [share for _, share in named]
        for name, _ in named:
            check_destination(destination, name, force=force)
        result = averages.average([read_checkpoint(name) for name, _ in named], shares)
        export_mlx(result, destination, dtype="float32", force=force)
        say(f"{destination}: average of {len(named)} models")
