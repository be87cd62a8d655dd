"""The first attempt at a window, when it is not simply decoded: in a batch, or in full context.

In the padded audio context the temperature fallback begins with the full context. An output that
is repetitive or improbable may be so because constants stand in for the silence behind the clip,
and with them the model is less sure that nobody speaks: words were made up in the noise of a cafe
(docs/short-context.md). So before anything is sampled, a window with such an output, or with a
raised probability of no speech, is encoded with all of its 30 s and decoded as OpenAI's program
would; its further attempts use those encoder states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.model.cache import EncodedAudio


@dataclass(frozen=True)
class FirstAttempt:
    """The first attempt at a window, decoded before the others are asked for."""

    result: DecodingResult
    audio: EncodedAudio
    """Of this window, for further attempts."""


def in_full_context(
    loaded: LoadedModel,
    window: mx.array,
    prompt: Sequence[int],
    options: DecodingOptions,
    *,
    align_frames: Sequence[int] | None = None,
) -> FirstAttempt:
    """Decodes a window with encoder states of all 30 s, and leaves them in the decoder.

    Args:
        loaded: a checkpoint that was trained on 30 s.
        window: log-mel (3000, n_mels), zeros after the end of the clip.
        prompt: as for `Decoder.decode`.
        options: of the attempt.
        align_frames: as for `Decoder.decode`.
    """
    decoder = loaded.decoder
    decoder.release()  # the states of the padded clip are not in memory together with the new ones
    decoder.attend_to(loaded.model.encoder(window[None]))
    result = decoder.decode(prompt, options, align_frames=align_frames)[0]
    return FirstAttempt(result, decoder.encoded())
