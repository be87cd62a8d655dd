"""The group `baldwhisper-convert` and its command `export`.

torch takes seconds to import, so commands import what they need when they run; `--help` and
wrong options are answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click
from click.core import ParameterSource

from baldwhisper_convert.cli.average import average
from baldwhisper_convert.cli.errors import Commands, one_line_errors, say
from baldwhisper_convert.cli.label import label
from baldwhisper_convert.cli.prepare import prepare
from baldwhisper_convert.cli.recipe import recipe
from baldwhisper_convert.cli.run import align, run, search
from baldwhisper_convert.cli.stages import distill, factorize, finetune, merge
from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.config import AUDIO_BUCKET, AudioContext, Dtype
from baldwhisper_mlx.quantization_config import BITS, GROUP_SIZES

if TYPE_CHECKING:
    from baldwhisper_convert.export.model_card import CardFacts
    from baldwhisper_convert.export.quantize import QuantizeOptions

_BITS = [str(bits) for bits in reversed(BITS)]
_PADDING = ("padding_stride", "padding_tail")


def _bits(text: str) -> int | None:
    return None if text == "none" else int(text)


def _parse_overrides(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, int | None], ...]:
    parsed = []
    choices = ", ".join([*_BITS, "none"])
    for value in values:
        pattern, _, bits = value.rpartition("=")
        if not pattern or bits not in (*_BITS, "none"):
            raise click.BadParameter(f"{value!r} is not PATTERN=BITS with BITS of {choices}")
        parsed.append((pattern, _bits(bits)))
    return tuple(parsed)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="baldwhisper-convert")
def main() -> None:
    """Convert Whisper checkpoints to models for baldwhisper-mlx and make them smaller.

    `export` converts a checkpoint. The other commands are the stages of compression, each of
    which reads a model and writes a new model folder; `run` runs all stages of a recipe.
    """


@main.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="float16",
    show_default=True,
    help="Floating-point type of the stored weights.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["mlx", "hf"]),
    default="mlx",
    show_default=True,
    help="mlx: a model folder for baldwhisper-mlx. hf: a Hugging Face folder for transformers, "
    "and for the converters of faster-whisper and whisper.cpp; a factorized token embedding is "
    "stored as a dense matrix.",
)
@click.option("--revision", help="Branch, tag or commit, if SRC is a Hub id.")
@click.option(
    "--tokenizer",
    metavar="PATH_OR_HUB_ID",
    help="Source of the tokenizer. Default: SRC, or OpenAI's tokenizer if SRC has none.",
)
@click.option("--force", is_flag=True, help="Replace DST if it is an exported model.")
@click.option(
    "--audio-context",
    type=click.Choice(get_args(AudioContext)),
    help="Audio context that the model was trained with. Default: the one stored in SRC, else "
    "full. A model that was trained with full is less accurate with the others.",
)
@click.option(
    "--language",
    "languages",
    multiple=True,
    help="Language that the model was trained for, as a code or English name; the runtime and "
    "transformers refuse others. Repeatable. Default: those stored in SRC, else all that its "
    "vocabulary has.",
)
@click.option(
    "--quantize",
    type=click.Choice(_BITS),
    help="Quantize the weight matrices to this number of bits. Convolutions, position "
    "embeddings, layer norms and biases are not quantized.",
)
@click.option(
    "--group-size",
    type=click.Choice([str(size) for size in GROUP_SIZES]),
    default="64",
    show_default=True,
    help="Number of weights that share a scale. A matrix whose row length is not a multiple of "
    "it gets a smaller group size.",
)
@click.option(
    "--quantize-embedding",
    type=click.Choice([*_BITS, "none"]),
    help="Bits of the token embedding; none does not quantize it.  [default: as --quantize]",
)
@click.option(
    "--quantize-override",
    "overrides",
    metavar="PATTERN=BITS",
    multiple=True,
    callback=_parse_overrides,
    help="Bits (or none) of the matrices whose path matches a pattern, such as "
    "'decoder.blocks.0.*=8' or '*.mlp2=none'. Repeatable; the last match applies.",
)
@click.option(
    "--calibration",
    metavar="FOLDER",
    help="Compute the constants of --padding from this speech: a folder of audio files (metadata "
    "is not needed), or a list of files, of which at most 6 are used, spread evenly over it. Needs "
    "the audio context full.",
)
@click.option(
    "--padding/--no-padding",
    default=True,
    show_default=True,
    help="Store constants that replace the silence behind a short clip, so that the clip alone is "
    "encoded instead of 30 s. By default they are computed from two seconds of synthetic speech "
    "that come with the package. A model that was trained for another audio context than full gets "
    "none.",
)
@click.option(
    "--padding-stride",
    type=click.IntRange(1, AUDIO_BUCKET),
    default=8,
    show_default=True,
    help="Encoder positions (20 ms each) that one constant key of --padding stands for.",
)
@click.option(
    "--padding-tail",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Encoder positions of silence behind the clip that the decoder attends to with --padding.",
)
@click.option(
    "--push-to-hub",
    "hub_id",
    metavar="OWNER/NAME",
    help="Upload the exported model, with its model card, to the Hugging Face Hub. Log in first "
    "with `hf auth login`, or set HF_TOKEN. A model that exists there gets a new version with "
    "--force only.",
)
@click.option("--private", is_flag=True, help="Make the repository of --push-to-hub private.")
@click.option(
    "--dataset",
    "datasets",
    metavar="OWNER/NAME",
    multiple=True,
    help="Hub id of a dataset that the model was trained on, for the model card. Repeatable.",
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
    languages: tuple[str, ...],
    quantize: str | None,
    group_size: str,
    quantize_embedding: str | None,
    overrides: tuple[tuple[str, int | None], ...],
    calibration: str | None,
    padding: bool,
    padding_stride: int,
    padding_tail: int,
    hub_id: str | None,
    private: bool,
    datasets: tuple[str, ...],
) -> None:
    """Convert a Whisper checkpoint to a model folder.

    SRC is a Hugging Face, CTranslate2 (faster-whisper) or mlx-community folder, an OpenAI .pt
    file, a model folder, or a Hugging Face Hub id such as openai/whisper-base. If the export
    fails, DST is not created or changed, and nothing is uploaded.
    """
    _check_combinations()
    with one_line_errors():
        from baldwhisper_convert.data.recordings import read_recordings
        from baldwhisper_convert.export.destination import check_destination
        from baldwhisper_convert.export.hugging_face import export_hf
        from baldwhisper_convert.export.mlx import export_mlx
        from baldwhisper_convert.export.push import check_push, push
        from baldwhisper_convert.readers.read import read_checkpoint

        check_destination(destination, source, force=force)
        if hub_id is not None:
            check_push(hub_id, private=private, force=force)
        recordings = read_recordings(calibration) if calibration is not None else None
        bundled: Literal["bundled"] | None = "bundled" if padding else None
        checkpoint = read_checkpoint(source, revision=revision, tokenizer=tokenizer)
        facts = _card_facts(source, hub_id, datasets)
        if kind == "hf":
            path = export_hf(
                checkpoint, destination, dtype=dtype, languages=languages, facts=facts, force=force
            )
        else:
            path = export_mlx(
                checkpoint, destination, dtype=dtype, audio_context=audio_context,
                languages=languages, calibration=recordings or bundled,
                quantize=_quantize_options(quantize, group_size, quantize_embedding, overrides),
                padding_stride=padding_stride, padding_tail=padding_tail, facts=facts, force=force,
            )  # fmt: skip
        size = sum(file.stat().st_size for file in path.iterdir())
        stored = dtype + (f" and {quantize} bits" if quantize else "")
        say(f"{path}: {checkpoint.format} checkpoint as {stored}, {size / 1e6:.1f} MB")
        if hub_id is not None:
            say(push(path, hub_id, private=private, force=force))


def _card_facts(source: str, hub_id: str | None, datasets: tuple[str, ...]) -> CardFacts:
    """What the model card says besides the checkpoint; the WER is that of a stage folder."""
    from baldwhisper_convert.export.model_card import CardFacts
    from baldwhisper_convert.pipeline.manifest import read_manifest

    manifest = read_manifest(Path(source).expanduser())
    wer = manifest.metrics.get("wer") if manifest else None
    return CardFacts(hub_id=hub_id, datasets=datasets, wer=wer)


def _check_combinations() -> None:
    """Refuses options of `export` that another one makes useless."""
    context = click.get_current_context()
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    ours = {"audio_context", "quantize", "calibration", "padding", *_PADDING}
    if context.params["kind"] == "hf" and given & ours:
        raise click.UsageError(
            "--audio-context, --quantize, --calibration and --padding need "
            "--format mlx, because other programs do not support them"
        )
    if "private" in given and "hub_id" not in given:
        raise click.UsageError("--private needs --push-to-hub, which makes the repository")
    if "quantize" not in given and given & {"group_size", "quantize_embedding", "overrides"}:
        raise click.UsageError(
            "--group-size, --quantize-embedding and --quantize-override need --quantize, the bits "
            "of the matrices"
        )
    if not context.params["padding"] and given & {"calibration", *_PADDING}:
        raise click.UsageError(
            "--calibration, --padding-stride and --padding-tail are about the constants that "
            "--no-padding leaves out"
        )


def _quantize_options(
    bits: str | None,
    group_size: str,
    embedding: str | None,
    overrides: tuple[tuple[str, int | None], ...],
) -> QuantizeOptions | None:
    from baldwhisper_convert.export.quantize import QuantizeOptions

    if bits is None:
        return None
    return QuantizeOptions(
        bits=int(bits),
        group_size=int(group_size),
        embedding="same" if embedding is None else _bits(embedding),
        overrides=overrides,
    )


for command in (
    label, prepare, finetune, search, merge, factorize, distill, average, align, run, recipe,
):  # fmt: skip
    main.add_command(command)
