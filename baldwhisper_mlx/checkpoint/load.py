"""From a folder or Hub id to a model that is ready to decode.

A checkpoint is checked before its first use: config, file sizes, names, shapes and types of all
tensors, stored indices, and the vocabulary.
weights.py reads the tensors.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import mlx.core as mx

from baldwhisper_mlx.checkpoint.files import check_files, find_model
from baldwhisper_mlx.checkpoint.kind import is_community
from baldwhisper_mlx.checkpoint.mlx_whisper import read_community
from baldwhisper_mlx.checkpoint.padding_file import compute_padding
from baldwhisper_mlx.checkpoint.padding_reader import read_padding
from baldwhisper_mlx.checkpoint.tensors import expected_tensors
from baldwhisper_mlx.checkpoint.weights import build_model, read_weights
from baldwhisper_mlx.config import (
    CONFIG_FILE,
    PADDING_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Dtype,
    ModelConfig,
)
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.options import Vocabulary
from baldwhisper_mlx.model.padding import Padding
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops import blas
from baldwhisper_mlx.ops.turns import Turn
from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks

RunContext = Literal["full", "padded"]
"""How many positions the encoder computes for a clip: 30 s, or the clip's own before constants."""


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory, for any thread, but for one at a time.

    `decoder` holds the caches, which are reused from window to window.
    """

    model: Whisper
    config: ModelConfig
    tokenizer: Tokenizer
    decoder: Decoder
    path: Path
    _turn: Turn = field(repr=False, compare=False)

    @property
    def audio_context(self) -> str:
        """What it runs in: "padded" with constants, else the checkpoint's own context."""
        return "padded" if self.model.padding is not None else self.config.audio_context

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Waits until no other thread uses the model, and keeps it for this one.

        The decoder's caches are freed at the end.

        Raises:
            RuntimeError: the process was forked after the model had been loaded.
        """
        with self._turn:
            try:
                yield
            finally:
                self.decoder.release()


def load_model(
    path_or_hub_id: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: Dtype | None = None,
    audio_context: RunContext | None = None,
) -> LoadedModel:
    """Loads an exported model, or one of mlx-community's.

    Args:
        path_or_hub_id: a folder, or a Hugging Face Hub id such as "owner/model". For an id the
            local cache is tried first, without any network call. By default the English
            model that comes with the package.
        revision: branch, tag or commit of a Hub id.
        dtype: of the weights in memory; default the checkpoint's on a GPU and float32 on a
            CPU, where MLX multiplies 16-bit numbers many times slower.
        audio_context: "padded" encodes the clip alone, with constants for the rest of 30 s;
            "full" encodes 30 s, as OpenAI's code does. Default: "padded" if the folder has the
            constants (`padding.safetensors`), else what the checkpoint was trained for. Without
            the file, "padded" computes the constants now, which takes as long as encoding a
            minute.

    Raises:
        ValueError: files are missing, damaged or of another format; the message names them.
        FileNotFoundError: no such folder, and not a Hub id either.
        RuntimeError: a model was loaded before the process was forked.

    Example:
        >>> load_model("models/whisper-base").config.n_text_layer
        6
    """
    folder = find_model(path_or_hub_id, revision)
    with _standard_input_open():
        return _load(folder, dtype, audio_context)


@contextmanager
def _standard_input_open() -> Iterator[None]:
    """Gives no file the number 0, which MLX takes for an error where standard input is closed."""
    placeholder = os.open(os.devnull, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(placeholder)


def _load(folder: Path, dtype: Dtype | None, audio_context: RunContext | None) -> LoadedModel:
    turn = Turn()  # before anything is computed, which would wait forever in a forked process
    if is_community(folder):
        config, weights, community = read_community(folder)
        source, ranks, vocabulary_file = community.weights, community.ranks, community.vocabulary
    else:
        check_files(folder)
        config = ModelConfig.from_file(folder / CONFIG_FILE)
        source = folder / WEIGHTS_FILE
        vocabulary_file = folder / VOCABULARY_FILE
        weights = read_weights(source, expected_tensors(config))
        ranks = read_ranks(vocabulary_file)
    tokenizer = Tokenizer(ranks, config, str(vocabulary_file))
    if mx.default_device().type == mx.DeviceType.cpu:
        dtype = dtype or "float32"
        if advice := blas.hint():
            warnings.warn(advice, stacklevel=3)
    model = build_model(weights, config, str(source), dtype)
    model.padding = _padding_for(folder, model, audio_context)
    vocabulary = Vocabulary(
        n_vocab=config.n_vocab,
        eot=tokenizer.eot,
        sot=tokenizer.sot,
        no_speech=tokenizer.no_speech,
        no_timestamps=tokenizer.no_timestamps,
        timestamp_begin=tokenizer.timestamp_begin,
        suppress=tokenizer.suppressed_tokens,
        suppress_first=tokenizer.blank_tokens,
        control=tokenizer.control_tokens,
    )
    return LoadedModel(model, config, tokenizer, Decoder(model, vocabulary), folder, turn)


def _padding_for(folder: Path, model: Whisper, context: RunContext | None) -> Padding | None:
    """The constants of a folder, if the audio context asks for them."""
    path = folder / PADDING_FILE
    if context not in (None, *get_args(RunContext)):
        raise ValueError(f"audio_context must be full or padded, not {context!r}")
    trained_for = model.config.audio_context
    if context is not None and trained_for != "full":
        raise ValueError(
            f"{folder}: trained for a {trained_for} audio context, and runs in that one only; "
            f"audio_context {context!r} is for checkpoints trained on 30 s"
        )
    if context == "full" or (context is None and not os.path.lexists(path)):
        return None
    return read_padding(path, model) if os.path.lexists(path) else compute_padding(model)
