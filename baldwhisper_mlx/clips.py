"""Many short recordings at once: their first windows, which are all of them, in one batch.

Decoding reads all of the decoder's weights for every token, so ten clips together take little
longer than one. What a clip gets here is what `transcribe` gives it by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.features import N_FRAMES
from baldwhisper_mlx.load import LoadedModel
from baldwhisper_mlx.segments import Transcript
from baldwhisper_mlx.transcription import Transcription, detect_languages, prepare


def transcribe_clips(
    clips: Sequence[npt.NDArray[np.float32]],
    loaded: LoadedModel,
    *,
    initial_prompt: str | None = None,
    **options: Any,
) -> list[Transcript]:
    """Transcribes recordings, the first 30 s of all of them together.

    What comes after the first window, and attempts at a temperature above 0, are decoded one
    recording at a time.

    Args:
        clips: mono samples (n,) at 16 kHz, as for `transcribe`.
        loaded: from `load_model`.
        initial_prompt: text that precedes every clip.
        options: the other ones of `transcribe`, but for `on_progress`.

    Raises:
        ValueError, FloatingPointError: as `transcribe`.
    """
    runs = [prepare(clip, loaded, **options) for clip in clips]
    filled = [run for run in runs if run.mel.n_frames]
    # What is sampled depends on the row of the batch, so only greedy attempts can be shared.
    if len(filled) > 1 and filled[0].attempts[0].temperature == 0:
        _decode_first_windows(loaded, filled, initial_prompt)
    return [run(initial_prompt, lambda _done, _all: None) for run in runs]


def _decode_first_windows(
    loaded: LoadedModel, runs: Sequence[Transcription], initial_prompt: str | None
) -> None:
    sizes = [min(N_FRAMES, run.mel.n_frames) for run in runs]
    loaded.decoder.encode(mx.stack([run.mel.window(0) for run in runs]), sizes)
    if runs[0].language is None and loaded.tokenizer.is_multilingual:
        for run, language in zip(runs, detect_languages(loaded), strict=True):
            run.language = language
    history = runs[0].encoded(initial_prompt)
    prompts = [run.prompt(history) for run in runs]
    frames = sizes if runs[0].words else None
    results = loaded.decoder.decode(prompts, runs[0].attempts[0], align_frames=frames)
    for run, result in zip(runs, results, strict=True):
        run.first = result
