"""What users pass to `transcribe`: recordings and models in any form, and options for a model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples, check_samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.suppression import suppressed_ids
from baldwhisper_mlx.transcription.options import TranscribeOptions


def samples_of(audio: str | Path | BinaryIO | npt.NDArray[np.float32]) -> Samples:
    """Checked samples at 16 kHz (n,); those of a file are checked as they are decoded.

    Args:
        audio: as for `transcribe`.

    Raises:
        FileNotFoundError, ValueError: see `load_audio`. TypeError: `audio` is something else.
    """
    if isinstance(audio, np.ndarray) or not (
        isinstance(audio, (str, Path)) or hasattr(audio, "read")
    ):
        return check_samples(audio)
    return load_audio(audio)


def model_of(model: LoadedModel | str | Path | None) -> LoadedModel:
    """The model, or the one of that name; the last one so named stays in memory."""
    return model if isinstance(model, LoadedModel) else _cached_model(model)


def check_options(options: TranscribeOptions, loaded: LoadedModel) -> None:
    """Makes sure that a model can follow the options, before anything is decoded.

    Raises:
        ValueError: it does not know a language or only one, cannot translate, or does not have a
            token that is to be suppressed.
    """
    tokenizer = loaded.tokenizer
    if options.language is not None:
        tokenizer.to_language(options.language)
    tokenizer.candidates(options.languages)
    if options.multilingual:
        tokenizer.check_multilingual()
    tokenizer.check_task(options.task)
    suppressed_ids(options.attempts[0].suppress_tokens, loaded.decoder.vocabulary)


@lru_cache(maxsize=1)
def _cached_model(path_or_hub_id: str | Path | None) -> LoadedModel:
    return load_model(path_or_hub_id)
