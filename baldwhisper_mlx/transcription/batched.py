"""Several recordings at once: their windows in lockstep, in one batch.

Decoding reads all of the decoder's weights for every token, so ten clips together take little
longer than one. What a clip gets here is what `transcribe` gives it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.decoder import DecodingResult
from baldwhisper_mlx.transcription.segments import Transcript
from baldwhisper_mlx.transcription.sequential import Transcription, encode_windows, prepare


def transcribe_clips(
    clips: Sequence[npt.NDArray[np.float32]],
    loaded: LoadedModel,
    *,
    initial_prompt: str | None = None,
    on_window: Callable[[float], None] = lambda _done: None,
    **options: Any,
) -> list[Transcript]:
    """Transcribes recordings together, window by window.

    Windows with prompts of one length share a batch: the first ones, and with
    `condition_on_previous_text=False` all. The others, and attempts at a temperature above 0, are
    decoded one recording at a time.

    Args:
        clips: mono samples (n,) at 16 kHz, as for `transcribe`.
        loaded: from `load_model`.
        initial_prompt: text that precedes every clip.
        on_window: called with the seconds done, of all clips together, after every batch.
        options: the other ones of `transcribe`, but for `on_progress`.

    Raises:
        ValueError, FloatingPointError: as `transcribe`.
    """
    runs = [prepare(clip, loaded, **options) for clip in clips]
    for run in runs:
        run.begin(initial_prompt)
    while due := [run for run in runs if run.size]:
        for group in _of_one_length(due):
            shared = _decode_together(loaded, group)
            for run, result in zip(group, shared, strict=True):
                run.advance(result)
            on_window(sum(run.done for run in runs))
    return [run.transcript() for run in runs]


def _of_one_length(runs: Sequence[Transcription]) -> list[list[Transcription]]:
    """Recordings whose next windows have prompts of the same length."""
    groups: dict[int, list[Transcription]] = {}
    for run in runs:
        groups.setdefault(len(run.prompt()), []).append(run)
    return list(groups.values())


def _decode_together(
    loaded: LoadedModel, runs: Sequence[Transcription]
) -> Sequence[DecodingResult | None]:
    """First attempts at the next windows; None for each that is better made alone."""
    attempt = runs[0].attempts[0]
    # What is sampled depends on the row of the batch, so only greedy attempts can be shared.
    if len(runs) < 2 or attempt.temperature > 0:
        return [None] * len(runs)
    encode_windows(runs)
    frames = [run.size for run in runs] if runs[0].words else None
    return loaded.decoder.decode([run.prompt() for run in runs], attempt, align_frames=frames)
