"""Writes a checkpoint as a model folder for the runtime, and verifies that it runs.

The folder is built under a temporary name, loaded with the runtime and run once, and then renamed.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.key_maps import MLX_EXPORT, rename
from baldwhisper_convert.checkpoint.state import (
    CONVOLUTIONS,
    EMBEDDING,
    State,
    converted,
    fuse,
)
from baldwhisper_convert.export.destination import ExportWarning, check_destination, save_tensors
from baldwhisper_convert.export.model_card import MODEL_CARD_FILE, NO_FACTS, CardFacts, model_card
from baldwhisper_convert.export.quantize import QuantizeOptions, quantized
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    CONTROL_TOKENS,
    PADDING_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    AudioContext,
    Dtype,
    ModelConfig,
)
from baldwhisper_mlx.files import atomic_folder

Calibration: TypeAlias = Sequence[Samples] | Literal["bundled"]
"""What the constants of the padded audio context are computed from."""
START_OF_TRANSCRIPT = CONTROL_TOKENS[1]
SHORT_CLIP = 100
"""Mel frames (1 s) of the clip that verifies a padded audio context."""


def export_mlx(
    checkpoint: Checkpoint,
    destination: str | Path,
    *,
    dtype: Dtype = "float16",
    audio_context: AudioContext | None = None,
    languages: Sequence[str] = (),
    quantize: QuantizeOptions | None = None,
    calibration: Calibration | None = None,
    padding_stride: int = 8,
    padding_tail: int = 100,
    facts: CardFacts = NO_FACTS,
    force: bool = False,
) -> Path:
    """Exports a checkpoint to a folder that `baldwhisper_mlx.load_model` reads.

    Args:
        checkpoint: the model, dense or with a factorized embedding.
        destination: folder to make; its parent is made too if it is missing.
        dtype: type the weights are stored in.
        audio_context: what the model was trained for; by default the checkpoint's.
        languages: codes or English names of the languages that the model was trained for; the
            runtime refuses others. By default the checkpoint's, else all with a token.
        quantize: how to quantize the matrices; None stores them in `dtype`.
        calibration: recordings of speech (n,), 16 kHz, from which the constants of the padded
            audio context are computed; "bundled" for the package's; None for no constants.
        padding_stride: encoder positions (20 ms each) that one constant key stands for.
        padding_tail: positions of padding that the decoder attends to.
        facts: what the model card says besides.
        force: replace an existing exported model (or empty folder).

    Returns:
        The resolved path of the folder.

    Raises:
        FileExistsError: `destination` exists and `force` is not set, or it is not something
            that an export would have made.
        ValueError: an unknown language, a weight does not fit `dtype`, `quantize` names no matrix
            of the model, `calibration` is empty or for a model that was not trained on 30 s, or
            the exported model does not load or run.

    Example:
        >>> export_mlx(read_checkpoint("openai/whisper-base"), "models/base")  # doctest: +SKIP
    """
    path = Path(destination).expanduser().resolve()
    check_destination(path, checkpoint.source, force=force)
    codes = tuple(dict.fromkeys(map(checkpoint.tokenizer().to_language, languages)))
    config = checkpoint.model_config(dtype=dtype, audio_context=audio_context, languages=codes)
    if isinstance(calibration, str) and config.audio_context != "full":
        calibration = None
    _check_calibration(config, calibration, checkpoint.source)
    config, tensors = _stored(checkpoint, config, quantize)
    with atomic_folder(path) as folder:
        _write(folder, config, tensors, checkpoint)
        padding = _write_padding(folder, calibration, padding_stride, padding_tail)
        sizes = {key: tensor.nbytes for key, tensor in tensors.items()}
        card = model_card(config, checkpoint, path.name, sizes, padding, facts)
        (folder / MODEL_CARD_FILE).write_text(card, encoding="utf-8")
        _verify_export(folder)
    return path


def mlx_tensors(state: State, dtype: Dtype, source: str) -> State:
    """Canonical state to the exported folder's names, layouts and type.

    Args:
        state: canonical tensors.
        dtype: target type; `dense_ids` become int32 instead.
        source: where the state comes from, for errors.

    Returns:
        Contiguous tensors: attention projections fused, convolutions (out, kernel, in).

    Raises:
        ValueError: a finite value becomes infinite in `dtype`.
    """
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(get_args(Dtype))}")
    fused = fuse(state)
    tensors: State = {}
    for name, new in rename(fused, MLX_EXPORT, source).items():
        if new is None:
            continue
        tensor = fused.pop(name)
        if name in CONVOLUTIONS:
            tensor = tensor.permute(0, 2, 1)
        if name == f"{EMBEDDING}.dense_ids":
            tensors[new] = tensor.to(torch.int32).contiguous()
        else:
            tensors[new] = converted(tensor, dtype, f"{source}: {name}")
    return tensors


def _stored(
    checkpoint: Checkpoint, config: ModelConfig, quantize: QuantizeOptions | None
) -> tuple[ModelConfig, State]:
    """The tensors as they are stored, and the config with their quantization."""
    if quantize is None:
        return config, mlx_tensors(checkpoint.state, config.dtype, checkpoint.source)
    # Quantized from the source's values, not from their 16-bit roundings.
    tensors = mlx_tensors(checkpoint.state, "float32", checkpoint.source)
    quantization = quantize.plan(tensors)
    return (
        dataclasses.replace(config, quantization=quantization),
        quantized(tensors, quantization, config.dtype, checkpoint.source),
    )


def _check_calibration(config: ModelConfig, calibration: Calibration | None, source: str) -> None:
    """Refuses recordings for a model that cannot use them; warns of constants that are lost.

    Raises:
        ValueError: no recordings, or another audio context than "full".
    """
    if calibration is None:
        if config.audio_context == "full" and (Path(source).expanduser() / PADDING_FILE).is_file():
            warnings.warn(
                f"{source}: {PADDING_FILE} is not copied, because its constants belong to those "
                "weights; without --no-padding they are computed for the exported ones",
                ExportWarning,
                stacklevel=3,
            )
    elif not len(calibration):
        raise ValueError(f"{source}: no recordings to calibrate on")
    elif config.audio_context != "full":
        raise ValueError(
            f"{source}: calibration is for the audio context full, but this model's is "
            f"{config.audio_context}; export it without --calibration"
        )


def _write(folder: Path, config: ModelConfig, tensors: State, checkpoint: Checkpoint) -> None:
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    save_tensors(tensors, folder / WEIGHTS_FILE, "mlx")
    (folder / VOCABULARY_FILE).write_bytes(checkpoint.vocabulary.rank_file())


def _write_padding(
    folder: Path, calibration: Calibration | None, stride: int, tail: int
) -> str | None:
    """Computes the constants, if they are wanted, and says what they are, for the card."""
    if calibration is None:
        return None
    recordings = None if isinstance(calibration, str) else calibration
    # Imported here, because all other modules of this package work without MLX.
    from baldwhisper_mlx.checkpoint.calibrate import write_padding

    write_padding(folder, recordings, stride=stride, tail=tail)
    number = 1 if recordings is None else len(recordings)
    plural = "" if number == 1 else "s"
    return f"constants of {number} clip{plural}, stride {stride}, tail {tail}"


def _verify_export(folder: Path) -> None:
    """Loads the folder with the runtime and runs it on 30 s of zeros and one token.

    With constants for the padded audio context, also on a short clip.

    Raises:
        ValueError: it does not load, or its logits are not finite or of the wrong shape.
    """
    # Imported here, because all other modules of this package work without MLX.
    import mlx.core as mx

    from baldwhisper_mlx.checkpoint.load import load_model

    loaded = load_model(folder)
    model, config = loaded.model, loaded.config
    cache = model.make_cache()
    frames = 2 * config.n_audio_ctx
    cases = {frames: f"in {config.dtype}; export with --dtype float32 or bfloat16"}
    if model.padding is not None:
        cases[SHORT_CLIP] = f"with the constants of {PADDING_FILE}; export with --no-padding"
    tokens = mx.array([[config.special_tokens[START_OF_TRANSCRIPT]]])
    for n_frames, advice in cases.items():
        model.encode(mx.zeros((1, frames, config.n_mels)), [n_frames], cache)
        logits = model.logits(model.decoder(tokens, cache))
        if logits.shape != (1, 1, config.n_vocab):
            raise ValueError(f"the exported model gives logits of shape {logits.shape}")
        if not bool(mx.isfinite(logits).all().item()):
            raise ValueError(f"the exported model's logits are not finite {advice}")
