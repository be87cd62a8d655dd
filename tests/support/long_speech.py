"""Long recordings: a short one again and again."""

from __future__ import annotations

from pathlib import Path

import soundfile


def repeat_speech(source: Path, target: Path, seconds: int) -> Path:
    """Writes a WAV file of about so many seconds."""
    samples, rate = soundfile.read(source, dtype="int16")
    with soundfile.SoundFile(target, "w", rate, 1, "PCM_16") as file:
        for _ in range(seconds * rate // len(samples)):
            file.write(samples)
    return target
