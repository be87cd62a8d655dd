"""Audio features of windows: log-mel spectrograms and the encoder states computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baldwhisper_convert.data.windows import (
    WINDOW_POSITIONS,
    WINDOW_SECONDS,
    Sound,
    kept_positions,
)
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import SAMPLE_RATE


class AudioFeatures:
    """Computes one model's audio features, in one audio context.

    Args:
        model: its encoder computes the states.
        dynamic: whether the encoder receives a window's own frames only, as in the runtime with
            a model whose `audio_context` is "dynamic"; otherwise it receives 30 s.
        margin: seconds kept after the end of a window's audio.
        device: torch device.
    """

    def __init__(
        self, model: Whisper, *, dynamic: bool, margin: float, device: torch.device
    ) -> None:
        from transformers import WhisperFeatureExtractor

        self.model, self.dynamic, self.margin, self.device = model, dynamic, margin, device
        self._extractor = WhisperFeatureExtractor(feature_size=model.dims.n_mels)

    def log_mel(self, sounds: Sequence[Sound], *, silence: bool = False) -> Tensor:
        """Log-mel of windows (B, n_mels, 3000) on the device; see the function `log_mel`."""
        samples = [sound.samples for sound in sounds]
        return log_mel(samples, self._extractor, silence=silence).to(self.device)

    def positions(self, sound: Sound) -> int:
        """Encoder positions that are kept of a window."""
        full = sound.planned.window.full
        return kept_positions(
            len(sound.samples), full=full, dynamic=self.dynamic, margin=self.margin
        )

    def encode(self, mel: Tensor, positions: Sequence[int]) -> Tensor:
        """Encoder states (B, T, d), zero-padded; T is 1500, or for dynamic the longest window's.

        Args:
            mel: from `log_mel`.
            positions: of each window, from `positions`.
        """
        kept = positions if self.dynamic else [WINDOW_POSITIONS] * len(positions)
        states = mel.new_zeros(len(mel), max(kept), self.model.dims.n_audio_state)
        # Together where they are equally long: padding would change what the convolutions see.
        for count in sorted(set(kept)):
            rows = [row for row, own in enumerate(kept) if own == count]
            states[rows, :count] = self.model.encoder(mel[rows, :, : 2 * count])
        return states


def log_mel(sounds: Sequence[Samples], extractor: Any, *, silence: bool = False) -> Tensor:
    """Log-mel (B, n_mels, 3000) as the runtime computes it.

    After the last whole frame of the audio, the log-mel is zero, as in openai-whisper's
    `transcribe`. The extractor of transformers alone would append silence, whose log-mel is not
    zero, and reflect the audio at the end of 30 s.

    Args:
        sounds: samples at 16 kHz, at most 30 s each.
        extractor: transformers' WhisperFeatureExtractor.
        silence: fill up with the log-mel of silence instead of zeros.
    """
    n_frames = round(WINDOW_SECONDS * SAMPLE_RATE) // extractor.hop_length
    # A few frames more than 30 s of silence keep the reflection at the end out of the window.
    longer = (n_frames + 4) * extractor.hop_length
    padded = [np.pad(samples, (0, longer - len(samples))) for samples in sounds]
    features = extractor(padded, sampling_rate=SAMPLE_RATE, truncation=False, return_tensors="pt")
    mel: Tensor = features["input_features"][:, :, :n_frames]
    for row, samples in zip(mel, sounds, strict=True):
        if not silence:
            row[:, len(samples) // extractor.hop_length :] = 0.0
    return mel
