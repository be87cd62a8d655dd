"""`baldwhisper-convert`: the compressor's stages as commands.

torch takes seconds to import, so a command imports what it needs when it runs; `--help`
and wrong options answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from baldwhisper_convert.cli.errors import one_line_errors
from baldwhisper_convert.cli.run import align, prepare, run, search
from baldwhisper_convert.cli.stages import distill, factorize, finetune, merge
from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.config import AudioContext, Dtype
from baldwhisper_mlx.quantization_config import BITS, GROUP_SIZES

_BITS = [str(bits) for bits in reversed(BITS)]


def _bits(text: str) -> int | None:
    return None if text == "none" else int(text)


def _parse_overrides(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, int | None], ...]:
    parsed = []
    for value in values:
        pattern, _, bits = value.rpartition("=")
        if not pattern or bits not in (*_BITS, "none"):
            raise click.BadParameter(f"{value!r} is not PATTERN=BITS, BITS of {_BITS} or none")
        parsed.append((pattern, _bits(bits)))
    return tuple(parsed)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="baldwhisper-convert")
def main() -> None:
    """Turn Whisper checkpoints into models for baldwhisper-mlx."""


@main.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="float16",
    show_default=True,
    help="Type the weights are stored in.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["mlx", "hf"]),
    default="mlx",
    show_default=True,
    help="A folder for baldwhisper-mlx, or a Hugging Face one for transformers and what "
    "converts from it (faster-whisper, whisper.cpp); there a factorized embedding is multiplied "
    "out.",
)
@click.option("--revision", help="Branch, tag or commit, if SRC is a hub id.")
@click.option(
    "--tokenizer",
    metavar="PATH_OR_HUB_ID",
    help="Where to take the tokenizer from; by default SRC, and if that has none, OpenAI's.",
)
@click.option("--force", is_flag=True, help="Replace DST if it is an exported model.")
@click.option(
    "--audio-context",
    type=click.Choice(get_args(AudioContext)),
    help="What the model was trained for, if SRC does not say; by default what it says, or full. "
    "Anything but full makes other models less accurate.",
)
@click.option(
    "--quantize",
    type=click.Choice(_BITS),
    help="Quantize the matrices to so many bits. Convolutions, positions, norms and biases stay.",
)
@click.option(
    "--group-size",
    type=click.Choice([str(size) for size in GROUP_SIZES]),
    default="64",
    show_default=True,
    help="Numbers that share a scale. Matrices whose rows it does not divide take a smaller one.",
)
@click.option(
    "--quantize-embedding",
    type=click.Choice([*_BITS, "none"]),
    help="Bits of the token embedding, if not those of --quantize; none keeps it as it is.",
)
@click.option(
    "--quantize-override",
    "overrides",
    metavar="PATTERN=BITS",
    multiple=True,
    callback=_parse_overrides,
    help="Bits (or none) of the matrices whose path fits a pattern, such as "
    "'decoder.blocks.0.*=8' or '*.mlp2=none'. The last that fits holds.",
)
def export(
    source: str,
    destination: Path,
    dtype: Dtype,
    kind: str,
    revision: str | None,
    tokenizer: str | None,
    force: bool,
    audio_context: AudioContext | None,
    quantize: str | None,
    group_size: str,
    quantize_embedding: str | None,
    overrides: tuple[tuple[str, int | None], ...],
) -> None:
    """Convert the checkpoint SRC to the model folder DST.

    SRC is a Hugging Face, CTranslate2 (faster-whisper) or mlx-community folder, an OpenAI .pt
    file, a model folder, or a hub id such as openai/whisper-base. DST is written whole or not
    at all.
    """
    if kind == "hf" and (audio_context or quantize):
        raise click.UsageError("--audio-context and --quantize are for --format mlx")
    if quantize is None and (quantize_embedding or overrides):
        raise click.UsageError("say with --quantize what the other matrices get")
    with one_line_errors():
        from baldwhisper_convert.export.destination import check_destination
        from baldwhisper_convert.export.hugging_face import export_hf
        from baldwhisper_convert.export.mlx import export_mlx
        from baldwhisper_convert.export.quantize import QuantizeOptions
        from baldwhisper_convert.readers.read import read_checkpoint

        check_destination(destination, source, force=force)
        checkpoint = read_checkpoint(source, revision=revision, tokenizer=tokenizer)
        if kind == "hf":
            path = export_hf(checkpoint, destination, dtype=dtype, force=force)
        else:
            options = None
            if quantize is not None:
                options = QuantizeOptions(
                    bits=int(quantize),
                    group_size=int(group_size),
                    embedding="same" if quantize_embedding is None else _bits(quantize_embedding),
                    overrides=overrides,
                )
            path = export_mlx(
                checkpoint,
                destination,
                dtype=dtype,
                audio_context=audio_context,
                quantize=options,
                force=force,
            )
        size = sum(file.stat().st_size for file in path.iterdir())
        stored = dtype + (f" and {quantize} bits" if quantize else "")
        click.echo(f"{path}: {checkpoint.format} checkpoint as {stored}, {size / 1e6:.1f} MB")


for command in (prepare, finetune, search, merge, factorize, distill, align, run):
    main.add_command(command)
