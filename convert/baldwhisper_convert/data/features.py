"""What a model hears of a window: log-mel, how much of it, and the encoder's states of that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baldwhisper_convert.data.windows import POSITIONS_PER_SECOND, WINDOW_SECONDS, Sound
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE, bucketed_positions

_WHOLE = round(WINDOW_SECONDS * POSITIONS_PER_SECOND)


class Ear:
    """One model's hearing, in one audio context.

    Args:
        model: whose encoder listens.
        dynamic: whether it hears a window's own frames only, as the runtime does with a model
            whose `audio_context` is "dynamic"; else it hears 30 s.
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
        """Log-mel of windows (B, n_mels, 3000); see `log_mel`."""
        samples = [sound.samples for sound in sounds]
        return log_mel(samples, self._extractor, silence=silence).to(self.device)

    def positions(self, sound: Sound) -> int:
        """Encoder positions of a window that are kept."""
        n_samples = len(sound.samples)
        if self.dynamic:
            margin = round(self.margin * POSITIONS_PER_SECOND)
            return bucketed_positions(n_samples // HOP_LENGTH, margin, _WHOLE)
        wanted = math.ceil((n_samples / SAMPLE_RATE + self.margin) * POSITIONS_PER_SECOND)
        return _WHOLE if sound.planned.window.full else min(_WHOLE, wanted)

    def encode(self, mel: Tensor, positions: Sequence[int]) -> Tensor:
        """Encoder states (B, T, d): T is 1500, or, dynamic, the most positions of a window.

        Args:
            mel: from `log_mel`.
            positions: of each window.
        """
        kept = positions if self.dynamic else [_WHOLE] * len(positions)
        longest = max(kept)
        states = []
        for row, count in zip(mel, kept, strict=True):
            own = self.model.encoder(row[None, :, : 2 * count])
            states.append(F.pad(own, (0, 0, 0, longest - count)))
        return torch.cat(states)


def log_mel(sounds: Sequence[Samples], extractor: Any, *, silence: bool = False) -> Tensor:
    """Log-mel (B, n_mels, 3000) as the runtime computes it.

    After the last whole frame of the audio come zeros of log-mel, as in openai-whisper's
    `transcribe`; transformers' extractor alone would put silence there, and mirror the sound at
    the end of 30 s.

    Args:
        sounds: samples at 16 kHz, at most 30 s each.
        extractor: transformers' WhisperFeatureExtractor.
        silence: fill 30 s with silence instead of zeros of log-mel.
    """
    n_frames = round(WINDOW_SECONDS * SAMPLE_RATE) // extractor.hop_length
    longer = (n_frames + 4) * extractor.hop_length
    padded = [np.pad(samples, (0, longer - len(samples))) for samples in sounds]
    features = extractor(padded, sampling_rate=SAMPLE_RATE, truncation=False, return_tensors="pt")
    mel: Tensor = features["input_features"][:, :, :n_frames]
    for row, samples in zip(mel, sounds, strict=True):
        if not silence:
            row[:, len(samples) // extractor.hop_length :] = 0.0
    return mel
