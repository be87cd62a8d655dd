"""Batched transcription: the windows of several recordings in lockstep.

Decoding reads all of the decoder's weights for every token, so ten clips together take little
longer than one. Each clip gets the transcript that it gets by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.first_attempt import FirstAttempt
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.sequential import Transcription, encode_windows


def transcribe_clips(
    clips: Sequence[Samples],
    loaded: LoadedModel,
    options: TranscribeOptions | Sequence[TranscribeOptions] | None = None,
    *,
    first_attempts: list[DecodingResult] | None = None,
    on_window: Callable[[float], None] = lambda _done: None,
) -> list[Transcript]:
    """Transcribes recordings together, window by window.

    Windows whose prompts have the same length share a batch: the first ones, and with
    `condition_on_previous_text=False` all. The others, and attempts at a temperature above 0, are
    decoded one recording at a time.

    Args:
        clips: mono samples (n,) at 16 kHz, as for `transcribe`.
        loaded: from `load_model`.
        options: all but `vad`, `batch_size` and `on_progress`, for all clips or one for each;
            these may differ in the prefix only. The initial prompt precedes every clip.
        first_attempts: gets the first attempt at every window that is no silence.
        on_window: called with the seconds done, of all clips together, after every batch.

    Raises:
        ValueError, FloatingPointError: as `transcribe_sequentially`.
    """
    options = options or TranscribeOptions()
    each = [options] * len(clips) if isinstance(options, TranscribeOptions) else options
    runs = [Transcription.start(clip, loaded, own) for clip, own in zip(clips, each, strict=True)]
    while unfinished := [run for run in runs if run.window_frames]:
        for group in alike(unfinished):
            transcribe_windows(loaded, group)
            on_window(sum(run.seconds_done for run in runs))
    if first_attempts is not None:
        first_attempts += [attempt for run in runs for attempt in run.decoding.first_attempts]
    return [run.transcript() for run in runs]


def transcribe_windows(loaded: LoadedModel, runs: Sequence[Transcription]) -> None:
    """Transcribes the next window of each recording, in one batch.

    Args:
        loaded: in use by the calling thread.
        runs: of that model, unfinished, and one group of `alike`.
    """
    # Here, because the encoder states of the batch are freed when the function returns.
    for run, shared in zip(runs, _decode_together(loaded, runs), strict=True):
        run.transcribe_window(shared)


def alike(runs: Sequence[Transcription]) -> list[list[Transcription]]:
    """Recordings with the same options, by the length of their next window's prompt and its prefix.

    Args:
        runs: unfinished, of one model, with the same options but for the prefix.
    """
    groups: dict[tuple[int, DecodingOptions], list[Transcription]] = {}
    for run in runs:
        groups.setdefault((len(run.decoding.prompt()), run.decoding.attempts[0]), []).append(run)
    return list(groups.values())


def _decode_together(
    loaded: LoadedModel, runs: Sequence[Transcription]
) -> Sequence[FirstAttempt | None]:
    """First attempts at the next windows; None for each that has to be made alone."""
    attempt = runs[0].decoding.attempts[0]
    # What is sampled depends on the row of the batch, so only greedy attempts can be shared.
    if len(runs) < 2 or attempt.temperature > 0:
        return [None] * len(runs)
    encode_windows(runs)
    prompts = [run.decoding.prompt() for run in runs]
    if len(set(map(len, prompts))) > 1:  # a language has changed, so a text is no context any more
        return [None] * len(runs)
    words = runs[0].options.word_timestamps
    frames = [run.window_frames for run in runs] if words else None
    audio = loaded.decoder.encoded()
    results = loaded.decoder.decode(prompts, attempt, align_frames=frames)
    return [FirstAttempt(result, audio.clip(i)) for i, result in enumerate(results)]
