"""The synthesizer Kokoro-82M: its English and French voices, and mixtures of two voices.

A voice is a table of style vectors, and the weighted mean of two tables is a third voice, so that
few files give many speakers. Mixtures of the only French voice, ff_siwis, with as much or less of
an English one speak French: whisper-base understands them as well as ff_siwis alone, but gets three
quarters of the words of English voices with French phonemes wrong.

The model and the voices are those of the Hugging Face Hub's onnx-community/Kokoro-82M-v1.0-ONNX,
which are under the Apache License 2.0; the Python package kokoro-onnx, which is no dependency of
this project, runs them with ONNX Runtime.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from speech_engines import VoiceRange, VoiceSetting, to_16k

from baldwhisper_convert.data.augment import Audio

UNCLEAR_VOICES = ("am_liam", "bf_emma", "bf_isabella", "bm_george")
"""Voices of which whisper-base gets 9 to 13 % of the words wrong; of all English voices 2.2 %."""
STYLE_SIZE = 256
RATE = (0.8, 1.2)
SHARE = (0.2, 0.8)
"""Of the first voice in a mixture; nearer to 0 or 1 a mixture sounds like one of its voices."""
FRENCH_VOICE = "ff_siwis"
FRENCH_SHARE = (0.5, 0.85)
"""Of the French voice in a mixture."""
MIXTURES = 0.7
"""The probability of a mixture."""


def english_voices(folder: Path, skip: list[str]) -> list[str]:
    """Names of the American (af_, am_) and British (bf_, bm_) voices of a folder, sorted.

    Args:
        folder: has a file NAME.bin per voice.
        skip: names to leave out; the unclear voices may be missing from the folder.

    Raises:
        ValueError: a name to leave out is not in the folder, or no voice remains.
    """
    names = {path.stem for path in folder.glob("[ab][fm]_*.bin")}
    if unknown := sorted(set(skip) - names - set(UNCLEAR_VOICES)):
        raise ValueError(
            f"--kokoro-skip {' '.join(unknown)}: no such English voice in {folder}; it has "
            f"{' '.join(sorted(names)) or 'none'}"
        )
    if not names - set(skip):
        raise ValueError(
            f"--kokoro-voices {folder}: no English voices (such as af_heart.bin) that are not "
            "skipped; give the folder voices of onnx-community/Kokoro-82M-v1.0-ONNX"
        )
    return sorted(names - set(skip))


def voice_ranges(names: list[str]) -> list[VoiceRange]:
    """The ranges of all voices and of all mixtures of two, with weights that sum to 1.

    The name of a mixture is "FIRST+SECOND", and its pitch field the share of the first.
    """
    pairs = list(itertools.combinations(names, 2))
    mixtures = MIXTURES if pairs else 0.0
    alone = [VoiceRange("kokoro", name, (1.0 - mixtures) / len(names), RATE) for name in names]
    return alone + [
        VoiceRange("kokoro", "+".join(pair), mixtures / len(pairs), RATE, SHARE) for pair in pairs
    ]


def french_ranges(partners: list[str]) -> list[VoiceRange]:
    """The ranges of the French voice and of its mixtures with others, with weights that sum to 1.

    Args:
        partners: names of English voices.
    """
    mixtures = MIXTURES if partners else 0.0
    return [VoiceRange("kokoro", FRENCH_VOICE, 1.0 - mixtures, RATE)] + [
        VoiceRange("kokoro", f"{FRENCH_VOICE}+{name}", mixtures / len(partners), RATE, FRENCH_SHARE)
        for name in partners
    ]


def read_voice(path: Path) -> NDArray[np.float32]:
    """Reads a voice: little-endian float32, a style vector per number of phonemes.

    Returns:
        Shape (largest number of phonemes, 1, 256).

    Raises:
        ValueError: the file's size or values are not those of a voice.
    """
    data = path.read_bytes()
    if not data or len(data) % (4 * STYLE_SIZE):
        raise ValueError(
            f"{path}: {len(data)} bytes are not vectors of {STYLE_SIZE} float32; download it again"
        )
    voice = np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, 1, STYLE_SIZE)
    if not np.all(np.isfinite(voice)):
        raise ValueError(f"{path}: has values that are not finite; download it again")
    return voice


@dataclass(frozen=True)
class Kokoro:
    """The engine: synthesizes a sentence when called.

    Attributes:
        model: the ONNX file.
        folder: of the voices.
        language: of the sentences, "en" or "fr".
    """

    model: Path
    folder: Path
    language: str = "en"

    def check(self, names: list[str]) -> str:
        """Loads the model and the voices, before the first sentence.

        Returns:
            SHA-256 of the model and the voices, by which a resumed folder is checked.

        Raises:
            RuntimeError: kokoro-onnx is not installed.
            ValueError: the file is not Kokoro's model, or a voice is damaged.
        """
        load_kokoro(self.model)
        hasher = hashlib.sha256(self.model.read_bytes())
        for name in names:
            hasher.update(_voice(self.folder, name).tobytes())
        return hasher.hexdigest()

    def __call__(self, text: str, voice: VoiceSetting) -> Audio:
        """Synthesizes a sentence; the rate is 1 / speed, the pitch field a mixture's share.

        The accent of English by a mixture is that of the voice with the larger share.

        Raises:
            ValueError: the sentence has no phonemes that the model knows.
        """
        first, _, second = voice.name.partition("+")
        style, accent = _voice(self.folder, first), first
        if second:
            share = 0.5 if voice.pitch is None else voice.pitch
            style = share * style + (1.0 - share) * _voice(self.folder, second)
            accent = first if share >= 0.5 else second
        audio, rate = load_kokoro(self.model).create(
            text,
            voice=style.astype(np.float32),
            speed=1.0 / voice.rate,
            lang=self._pronunciation(accent),
        )
        return to_16k(audio, rate)

    def _pronunciation(self, accent: str) -> str:
        """The voice of espeak-ng that makes the phonemes."""
        if self.language == "fr":
            return "fr-fr"
        return "en-gb" if accent.startswith("b") else "en-us"


@functools.cache
def _voice(folder: Path, name: str) -> NDArray[np.float32]:
    return read_voice(folder / f"{name}.bin")


@functools.cache
def load_kokoro(model: Path) -> Any:
    """Loads the model with one thread; several processes use the cores better than threads do."""
    try:
        # By name, because they are not dependencies of this project.
        onnxruntime = importlib.import_module("onnxruntime")
        kokoro = importlib.import_module("kokoro_onnx").Kokoro
    except ImportError as error:
        raise RuntimeError(
            f"kokoro needs the Python package kokoro-onnx: pip install kokoro-onnx ({error})"
        ) from error
    if not model.is_file():
        raise FileNotFoundError(f"--kokoro-model {model}: not found")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
    # ONNX Runtime's errors have no common class below Exception.
    except Exception as error:
        raise ValueError(f"--kokoro-model {model}: not an ONNX model ({error})") from error
    inputs = {value.name for value in session.get_inputs()}
    if not {"style", "speed"} <= inputs:
        raise ValueError(
            f"--kokoro-model {model}: not Kokoro-82M; its inputs are {', '.join(sorted(inputs))}"
        )
    with tempfile.TemporaryDirectory() as name:
        # Voices are passed as arrays; kokoro-onnx only insists on a file of them.
        voices = Path(name) / "voices.npy"
        np.save(voices, np.zeros((1, 1, STYLE_SIZE), np.float32))
        return kokoro.from_session(session, str(voices))
