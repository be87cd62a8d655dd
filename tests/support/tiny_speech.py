"""Synthetic speech: tones and noise with transcripts, as folders, utterances and windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.prepared import SPEECH, PreparedWindow
from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_mlx.config import SAMPLE_RATE
from tests.support.tiny import tiny_checkpoint, tiny_dims

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog")


def sound(seconds: float, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tone in noise; its pitch, and the noise, depend on the seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 2000) * time)
    return (tone + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def tiny_speech(
    folder: Path, n: int = 6, *, seconds: tuple[float, float] = (0.4, 2.0), per_speaker: int = 4
) -> Path:
    """Writes an audiofolder: n WAV files and `metadata.jsonl` with text and speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(n):
        length = seconds[0] + (seconds[1] - seconds[0]) * (i * 0.618 % 1)
        soundfile.write(folder / f"{i:03}.wav", sound(length, i), SAMPLE_RATE)
        text = " ".join(WORDS[(i + k) % len(WORDS)] for k in range(3))
        row = {"file_name": f"{i:03}.wav", "text": text, "speaker": i // per_speaker}
        lines.append(json.dumps(row) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def tiny_utterance(
    path: Path, seconds: float = 1.0, text: str = "a fox", seed: int = 0
) -> Utterance:
    """Writes one WAV file; all of them are one person's speech."""
    soundfile.write(path, sound(seconds, seed), SAMPLE_RATE)
    return Utterance(str(path), str(path), text, "a")


def tiny_teacher(**fields: Any) -> Checkpoint:
    """A model that encodes 30 s in milliseconds: width 16, one layer each."""
    width = {"n_audio_state": 16, "n_text_state": 16}
    dims = tiny_dims(**width, n_audio_layer=1, n_text_layer=1)
    return tiny_checkpoint(dims, **({"alignment_heads": None} | fields))


@cache
def tiny_prompts(language: str = "en") -> Prompts:
    """The sequences of the tiny vocabulary."""
    return Prompts.of(tiny_teacher(), language)


def tiny_window(number: int = 0, **changes: Any) -> PreparedWindow:
    """A window of 10 positions, one word between two timestamps, following none."""
    prompts = tiny_prompts()
    tokens = [prompts.timestamp(0), *prompts.tokenizer.encode(" fox"), prompts.timestamp(0.2)]
    window = PreparedWindow(
        kind=SPEECH,
        positions=10,
        tokens=tuple(tokens),
        prompt=(),
        text="fox",
        duration=0.2,
        source="a.wav",
        number=number,
    )
    return replace(window, **changes)


@dataclass
class TinyWindows:
    """Windows in memory; features (positions, width), or log-mel, that tell the window."""

    windows: Sequence[PreparedWindow]
    is_mel: bool = False
    width: int = 4

    @property
    def languages(self) -> list[str]:
        """English."""
        return ["en"] * len(self.windows)

    def features(self, index: int) -> torch.Tensor:
        """All 1 + index."""
        length = self.windows[index].positions
        shape = (self.width, 2 * length) if self.is_mel else (length, self.width)
        return torch.full(shape, 1.0 + index)
