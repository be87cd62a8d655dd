"""Transcribes all clips of a dataset with one model, singly or in batches, and resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.evaluation.dataset import Clip, Speech
from baldwhisper_mlx.evaluation.hypotheses import ClipResult, Hypotheses, Hypothesis, Run
from baldwhisper_mlx.transcription.batched import transcribe_clips
from baldwhisper_mlx.transcription.fallback import TEMPERATURES
from baldwhisper_mlx.transcription.options import TranscribeOptions

NO_BEAMS = ("beam_size", None)
"""Left out of what is written, so that files from before there was beam search stay valid."""


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """Decoding options of an evaluation; all others are the defaults of `transcribe`."""

    language: str | None = None
    without_timestamps: bool = False
    condition_on_previous_text: bool = True
    fallback: bool = False
    """Retry at rising temperatures where the result is repetitive or improbable."""
    batch_size: int = 1
    beam_size: int | None = None
    """Hypotheses of beam search at temperature 0; None for greedy decoding."""

    def options(self) -> TranscribeOptions:
        """As options of a transcription."""
        return TranscribeOptions(
            language=self.language,
            without_timestamps=self.without_timestamps,
            condition_on_previous_text=self.condition_on_previous_text,
            temperature=TEMPERATURES if self.fallback else 0.0,
            beam_size=self.beam_size,
        )

    def to_dict(self) -> dict[str, Any]:
        """The options as they are written to files."""
        return {key: value for key, value in asdict(self).items() if (key, value) != NO_BEAMS}

    def run(self, loaded: LoadedModel, name: str, fingerprint: str) -> Run:
        """A model with these options, as `Hypotheses` identifies it."""
        environment = {
            "dtype": str(loaded.model.encoder.ln_post.weight.dtype).rpartition(".")[2],
            "device": mx.default_device().type.name,
            "mlx": version("mlx"),
            "baldwhisper_mlx": __version__,
        }
        return Run(name, fingerprint, self.to_dict() | environment)


def transcribe_dataset(
    loaded: LoadedModel,
    speech: Speech,
    settings: InferenceSettings,
    run: Run,
    known: Hypotheses,
    *,
    skip_bad: bool = False,
    on_clip: Callable[[Clip], None] | None = None,
) -> list[ClipResult]:
    """Transcribes every clip that has no hypothesis yet.

    Args:
        loaded: the model.
        speech: the clips.
        settings: decoding options.
        run: from `settings.run`.
        known: earlier hypotheses; new ones are added after every batch.
        skip_bad: leave out clips whose audio cannot be read.
        on_clip: called after every clip, in their order, transcribed now or earlier.

    Returns:
        One for each clip, in their order.

    Raises:
        FileNotFoundError, ValueError: audio cannot be read and `skip_bad` is not set.
        FloatingPointError: the model produced NaN or infinite logits; names the clip.
    """
    waiting: dict[str, tuple[Clip, Samples, float]] = {}

    def flush() -> None:
        if waiting:
            known.add(run, _transcribe(loaded, waiting, settings))
            waiting.clear()

    results: list[tuple[ClipResult, str]] = []
    for clip in speech:
        began = time.perf_counter()
        digest = reason = ""
        try:
            digest = clip.digest()
            if digest not in known.of(run) and digest not in waiting:
                waiting[digest] = clip, clip.samples(), time.perf_counter() - began
        except (OSError, ValueError) as error:
            if not skip_bad:
                raise
            digest, reason = "", str(error)
        # The audio of a clip may be its whole content, so clips are not kept.
        results.append((ClipResult(clip.name, clip.text, clip.speaker, None, reason), digest))
        if len(waiting) >= settings.batch_size:
            flush()
        if on_clip is not None:
            on_clip(clip)
    flush()
    hypotheses = known.of(run)
    return [replace(one, hypothesis=hypotheses.get(digest)) for one, digest in results]


def _transcribe(
    loaded: LoadedModel,
    waiting: dict[str, tuple[Clip, Samples, float]],
    settings: InferenceSettings,
) -> list[Hypothesis]:
    began = time.perf_counter()
    try:
        samples = [samples for _, samples, _ in waiting.values()]
        transcripts = transcribe_clips(samples, loaded, options=settings.options())
    except FloatingPointError as error:
        names = ", ".join(clip.name for clip, _, _ in waiting.values())
        raise FloatingPointError(f"{names}: {error}") from None
    share = (time.perf_counter() - began) / len(waiting)
    return [
        Hypothesis(
            audio=digest,
            file=clip.name,
            text=transcript.text.strip(),
            language=transcript.language,
            duration=round(transcript.duration, 3),
            seconds=round(reading + share, 4),
        )
        for (digest, (clip, _, reading)), transcript in zip(
            waiting.items(), transcripts, strict=True
        )
    ]
