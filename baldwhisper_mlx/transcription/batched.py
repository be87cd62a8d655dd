"""Batched transcription: the windows of several recordings in lockstep.

Decoding reads all of the decoder's weights for every token, so ten clips together take little
longer than one. Each clip gets the transcript that it gets by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.first_attempt import FirstAttempt
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.sequential import Transcription, encode_windows

LONGER = 2
"""Times the length of the shortest clip of a batch that the longest one may have."""


def transcribe_clips(
    clips: Sequence[Samples],
    loaded: LoadedModel,
    options: TranscribeOptions | Sequence[TranscribeOptions] | None = None,
    *,
    first_attempts: list[DecodingResult] | None = None,
    on_window: Callable[[float], None] = lambda _done: None,
) -> list[Transcript]:
    """Transcribes recordings together, window by window.

    Windows of similar length whose prompts have the same length share a batch: the first ones, and
    with `condition_on_previous_text=False` all. The others, and attempts at a temperature above 0,
    are decoded one recording at a time.

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
            for error in transcribe_windows(loaded, group):
                if error is not None:
                    raise error
            on_window(sum(run.seconds_done for run in runs))
    if first_attempts is not None:
        first_attempts += [attempt for run in runs for attempt in run.decoding.first_attempts]
    return [run.transcript() for run in runs]


def transcribe_windows(
    loaded: LoadedModel, runs: Sequence[Transcription]
) -> list[Exception | None]:
    """Transcribes the next window of each recording, in one batch.

    What fails together is tried alone, so that one recording cannot spoil the others.

    Args:
        loaded: in use by the calling thread.
        runs: of that model, unfinished, and one group of `alike`.

    Returns:
        For each recording why it failed, or None. One that failed cannot be continued.
    """
    errors: list[Exception | None] = []
    # Here, because the encoder states of the batch are freed when the function returns.
    for run, shared in zip(runs, _decode_together(loaded, runs), strict=True):
        try:
            run.transcribe_window(shared)
            errors.append(None)
        except Exception as error:
            errors.append(error)
    return errors


def alike(runs: Sequence[Transcription]) -> list[list[Transcription]]:
    """Recordings whose next windows can share a batch, and gain by it.

    They have prompts of one length, and are decoded in the same way; their options may differ in
    everything else. The encoder computes all clips of a batch at the length of the longest one,
    so that none may be more than `LONGER` times as long as another.

    Args:
        runs: unfinished, of one model.
    """
    groups: dict[tuple[Hashable, ...], list[Transcription]] = {}
    for run in runs:
        groups.setdefault(_way_of(run), []).append(run)
    return [part for group in groups.values() for part in _of_similar_length(group)]


def _way_of(run: Transcription) -> tuple[Hashable, ...]:
    """What the next windows of a batch have in common."""
    options, language = run.options, run.language
    candidates = language.candidates if language.code is None else ()
    prompt = len(run.decoding.prompt())
    attempt = run.decoding.attempts[0]
    return prompt, attempt, candidates, options.multilingual, options.word_timestamps


def _of_similar_length(runs: Sequence[Transcription]) -> list[list[Transcription]]:
    """The recordings in groups by what the encoder computes for their next windows."""
    sizes = {id(run): run.loaded.model.audio_positions(run.window_frames) for run in runs}
    groups: list[list[Transcription]] = []
    for run in sorted(runs, key=lambda run: sizes[id(run)]):
        if groups and sizes[id(run)] <= LONGER * sizes[id(groups[-1][0])]:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _decode_together(
    loaded: LoadedModel, runs: Sequence[Transcription]
) -> Sequence[FirstAttempt | None]:
    """First attempts at the next windows; None for each that has to be made alone."""
    attempt = runs[0].decoding.attempts[0]
    # What is sampled depends on the row of the batch, so only greedy attempts can be shared.
    if len(runs) < 2 or attempt.temperature > 0:
        return [None] * len(runs)
    try:
        return _first_attempts(loaded, runs, attempt)
    except Exception:  # of one of them, perhaps: each is tried alone
        return [None] * len(runs)


def _first_attempts(
    loaded: LoadedModel, runs: Sequence[Transcription], attempt: DecodingOptions
) -> Sequence[FirstAttempt | None]:
    encode_windows(runs)
    prompts = [run.decoding.prompt() for run in runs]
    if len(set(map(len, prompts))) > 1:  # a language has changed, so a text is no context any more
        return [None] * len(runs)
    words = runs[0].options.word_timestamps
    frames = [run.window_frames for run in runs] if words else None
    audio = loaded.decoder.encoded()
    results = loaded.decoder.decode(prompts, attempt, align_frames=frames)
    return [FirstAttempt(result, audio.clip(i)) for i, result in enumerate(results)]
