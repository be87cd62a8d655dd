"""Writes a checkpoint as a standard Hugging Face Whisper folder, for other programs.

A factorized embedding is multiplied out, because other programs do not support the factors; that
costs size and speed, not accuracy. The folder is built under a temporary name and renamed after
transformers has loaded and run it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.key_maps import HUGGING_FACE, rename
from baldwhisper_convert.checkpoint.state import EMBEDDING, State, converted
from baldwhisper_convert.export.destination import ExportWarning, check_destination, save_tensors
from baldwhisper_convert.export.hf_files import (
    generation_config,
    hf_config,
    preprocessor_config,
    to_json,
    tokenizer_files,
)
from baldwhisper_convert.export.model_card import (
    MODEL_CARD_FILE,
    NO_FACTS,
    CardFacts,
    hf_model_card,
)
from baldwhisper_mlx.config import FRAMES_PER_POSITION, Dtype
from baldwhisper_mlx.files import atomic_folder
from baldwhisper_mlx.text.tokenizer import Tokenizer

_HF_NAMES = {new: old for old, new in HUGGING_FACE.items() if new is not None}
_OUTPUT = "proj_out.weight"
_PROBE = "Hello, world! It's 12 o'clock -- \u00fcberall, \u4e16\u754c.\n\tNext  line"


def export_hf(
    checkpoint: Checkpoint,
    destination: str | Path,
    *,
    dtype: Dtype = "float16",
    languages: Sequence[str] = (),
    facts: CardFacts = NO_FACTS,
    force: bool = False,
) -> Path:
    """Exports a checkpoint to a folder for transformers and what converts from it.

    Args:
        checkpoint: the model; a factorized embedding becomes dense.
        destination: folder to make; its parent is made too if it is missing.
        dtype: type the weights are stored in.
        languages: codes or English names of the languages that the model was trained for;
            transformers refuses others, and uses a single one without detecting it. By default
            the checkpoint's, else all with a token.
        facts: what the model card says besides.
        force: replace an existing exported model (or empty folder).

    Returns:
        The resolved path of the folder.

    Raises:
        FileExistsError: `destination` exists and `force` is not set, or it is not something
            that an export would have made.
        ValueError: an unknown language, a model that transformers' Whisper cannot express, a
            weight that does not fit `dtype`, or the exported folder does not load as what was
            written.
    """
    path = Path(destination).expanduser().resolve()
    check_destination(path, checkpoint.source, force=force)
    if languages:
        codes = tuple(dict.fromkeys(map(checkpoint.tokenizer().to_language, languages)))
        checkpoint = replace(checkpoint, languages=codes)
    tensors = hf_tensors(checkpoint, dtype)
    untied = _OUTPUT in tensors
    _warn_of_other_programs(checkpoint, untied)
    with atomic_folder(path) as folder:
        save_tensors(tensors, folder / "model.safetensors", "pt")
        texts = {
            "config.json": to_json(hf_config(checkpoint, dtype, untied=untied)),
            "generation_config.json": to_json(generation_config(checkpoint, checkpoint.languages)),
            "preprocessor_config.json": to_json(preprocessor_config(checkpoint.dims)),
            **tokenizer_files(checkpoint.vocabulary, checkpoint.dims.n_text_ctx),
            MODEL_CARD_FILE: hf_model_card(
                checkpoint,
                path.name,
                dtype=dtype,
                parameters=sum(tensor.numel() for tensor in tensors.values()),
                untied=untied,
                facts=facts,
            ),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        _verify_export(folder, tensors, checkpoint.tokenizer())
    return path


def _warn_of_other_programs(checkpoint: Checkpoint, untied: bool) -> None:
    """Warns of forms of a model that other programs do not support."""
    if untied:
        warnings.warn(
            "input and output embedding differ (separate projections), so they are written as two "
            "matrices (tie_word_embeddings is false); transformers and CTranslate2 support that, "
            "but whisper.cpp's converter drops it and writes a wrong model",
            ExportWarning,
            stacklevel=3,
        )
    if checkpoint.audio_context != "full":
        warnings.warn(
            f"trained for a {checkpoint.audio_context} audio context, which only baldwhisper-mlx "
            "supports; other programs pad audio to 30 s, with which it may be less accurate",
            ExportWarning,
            stacklevel=3,
        )


def dense_embedding(state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """The token embedding as the two V x d matrices it stands for, float32.

    Returns:
        The input's and the output's; one and the same tensor if they do not differ.
    """
    dense = state.get(f"{EMBEDDING}.weight")
    if dense is not None:
        return dense.float(), dense.float()
    parts = {
        name.removeprefix(f"{EMBEDDING}."): tensor
        for name, tensor in state.items()
        if name.startswith(f"{EMBEDDING}.")
    }

    def multiply(projection: torch.Tensor) -> torch.Tensor:
        matrix = parts["factors"].float() @ projection.float()
        if "mean" in parts:
            matrix += parts["mean"].float()
        if "dense_rows" in parts:
            matrix[parts["dense_ids"].long()] = parts["dense_rows"].float()
        return matrix

    first = multiply(parts["input_projection"])
    second = parts.get("output_projection")
    return first, first if second is None else multiply(second)


def hf_tensors(checkpoint: Checkpoint, dtype: Dtype) -> State:
    """The state in transformers' names, the embedding dense, in one type.

    `proj_out.weight` is there only if it differs from the token embedding.

    Raises:
        ValueError: an unknown dtype, or a finite value becomes infinite in it.
    """
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(get_args(Dtype))}")
    state = {
        name: tensor
        for name, tensor in checkpoint.state.items()
        if not name.startswith(f"{EMBEDDING}.")
    }
    state[f"{EMBEDDING}.weight"], output = dense_embedding(checkpoint.state)
    names = rename(state, _HF_NAMES, checkpoint.source)
    tensors = {f"model.{new}": state[name] for name, new in names.items() if new is not None}
    if not torch.equal(output, state[f"{EMBEDDING}.weight"]):
        tensors[_OUTPUT] = output
    return {
        name: converted(tensor, dtype, f"{checkpoint.source}: {name}")
        for name, tensor in tensors.items()
    }


def _verify_export(folder: Path, tensors: State, tokenizer: Tokenizer) -> None:
    """Loads the folder with transformers, runs it once, and compares embeddings and tokenizer.

    Raises:
        ValueError: transformers loads something else than was written, or the logits are not
            finite.
    """
    import transformers

    bar = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        loaded: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, torch_dtype=torch.float32
        )
        processor = transformers.WhisperProcessor.from_pretrained(folder, local_files_only=True)
    finally:
        if bar:
            transformers.utils.logging.enable_progress_bar()
    model, report = loaded
    problems = [f"{kind}: {keys}" for kind, keys in report.items() if keys]
    embedding = tensors["model.decoder.embed_tokens.weight"]
    for name, written, read in (
        ("input", embedding, model.get_input_embeddings().weight),
        ("output", tensors.get(_OUTPUT, embedding), model.get_output_embeddings().weight),
    ):
        if not torch.equal(written.float(), read.detach()):
            problems.append(f"the {name} embedding differs")
    tokens = processor.tokenizer(_PROBE, add_special_tokens=False).input_ids
    if list(tokens) != tokenizer.encode(_PROBE):
        problems.append("the tokenizer encodes text differently")
    config = model.config
    frames = FRAMES_PER_POSITION * config.max_source_positions
    with torch.inference_mode():
        start = torch.tensor([[config.decoder_start_token_id]])
        mel = torch.zeros(1, config.num_mel_bins, frames)
        logits = model.eval()(input_features=mel, decoder_input_ids=start).logits
    if not bool(torch.isfinite(logits).all()):
        problems.append("its logits are not finite")
    if problems:
        raise ValueError(f"transformers does not load the export correctly: {'; '.join(problems)}")
