"""The actions that a case needs of a runtime, and their implementation for this one.

A runtime has a method for each action, which prepares everything and returns a task; only the task
is timed. A task ends when its result is on the host, because MLX evaluates lazily.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import mlx.core as mx

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.bench import primitives, roofline
from baldwhisper_mlx.bench.gpu_costs import gpu_costs
from baldwhisper_mlx.bench.memory import peak_process_bytes
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.config import FRAMES_PER_POSITION, ModelConfig
from baldwhisper_mlx.decoding.generation import CHECK_EVERY
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.transcription.fallback import TEMPERATURES
from baldwhisper_mlx.transcription.language import likeliest_languages, only_language
from baldwhisper_mlx.transcription.transcribe import transcribe

Task = Callable[[], dict[str, Any]]
"""Does the work once; returns counts: `tokens`, and of a transcription `windows`, `fallbacks`."""


class Runtime(Protocol):
    """The actions of a contender."""

    def describe(self) -> dict[str, Any]:
        """Facts about the model in memory."""

    def decode(self, *, batch: int, tokens: int, timestamps: bool) -> Task:
        """Forced tokens for each of `batch` clips of random encoder states, prompt included."""

    def encode(self, *, seconds: float) -> Task:
        """Log-mel of one clip to the keys and values that decoding attends to."""

    def first_token(self, *, audio: str, language: str | None) -> Task:
        """An audio file to the first token of its transcript."""

    def transcribe(self, *, audio: str, language: str | None, temperature: float | None) -> Task:
        """An audio file to its transcript; `temperature` None for the default schedule."""


class Ours:
    """A model in baldwhisper-mlx.

    Args:
        model: its folder.
    """

    def __init__(self, model: str) -> None:
        began = time.perf_counter()
        self.loaded = load_model(model)
        self._load_seconds = time.perf_counter() - began
        self._load_peak = peak_process_bytes()

    def describe(self) -> dict[str, Any]:
        """Sizes, dtype, loading; primitives per step, and the parts of the ceilings that are the
        model's; and what it would cost on a GPU."""
        loaded, config = self.loaded, self.loaded.config
        count, syncs = primitives.count_step(loaded), 1 / CHECK_EVERY
        return {
            "load_seconds": self._load_seconds,
            "load_peak_process_bytes": self._load_peak,
            "gpu": gpu_costs(loaded, primitives=count["fused"], syncs=syncs),
            "runtime": f"baldwhisper-mlx {__version__}",
            "parameters": roofline.count_floats(loaded.model),
            "audio_context": loaded.audio_context,
            "memory_dtype": _dtype_name(loaded.model.decoder.ln.weight.dtype),
            "weight_bytes": roofline.weight_bytes(loaded.model),
            "encode_flops": roofline.encode_flops(config, config.n_audio_ctx),
            "primitives": count,
            "syncs_per_token": syncs,
        }

    def step_bytes(self, *, batch: int, tokens: int, timestamps: bool) -> float:
        """Bytes that a step of `decode` with these arguments must read."""
        prompt = len(self._prompt(timestamps))
        return roofline.step_bytes(self.loaded.model, batch=batch, prompt=prompt, tokens=tokens)

    def encoder_flops(self, *, seconds: float) -> int:
        """Operations of `encode` with these arguments."""
        config, padding = self.loaded.config, self.loaded.model.padding
        positions = self.loaded.model.audio_positions(_frames(seconds))
        if padding is not None and positions < config.n_audio_ctx:
            return roofline.encode_flops(config, positions, *padding.counts(positions))
        # Without a dynamic context 30 s are encoded and cut afterwards.
        if config.audio_context != "dynamic":
            positions = config.n_audio_ctx
        return roofline.encode_flops(config, positions)

    def ceilings(self, *, stream_bytes: int) -> dict[str, float]:
        """Measured bytes per second, and operations per second at this encoder's shapes."""
        config = self.loaded.config
        dtype = self.loaded.model.decoder.ln.weight.dtype
        return {
            "bytes_per_second": roofline.bandwidth(stream_bytes),
            "flops_per_second": roofline.product_rate(
                config.n_audio_state, config.n_audio_ctx, dtype
            ),
        }

    def decode(self, *, batch: int, tokens: int, timestamps: bool) -> Task:
        """See `Runtime`."""
        decoder, prompt = self.loaded.decoder, self._prompt(timestamps)
        states = random_states(batch, self.loaded.config, self.loaded.model.decoder.ln.weight.dtype)
        options = DecodingOptions(timestamps=timestamps, forced_length=tokens)
        mx.eval(states)

        def task() -> dict[str, Any]:
            decoder.attend_to(states)  # timed, because mlx-whisper does it in its first step
            results = decoder.decode(prompt, options)
            return {"tokens": sum(len(result.tokens) for result in results)}

        return task

    def encode(self, *, seconds: float) -> Task:
        """See `Runtime`."""
        model = self.loaded.model
        cache = model.make_cache()
        mel, n_frames = random_mel(self.loaded.config.n_mels), _frames(seconds)
        mx.eval(mel)

        def task() -> dict[str, Any]:
            model.encode(mel, [n_frames], cache)
            mx.eval([layer.cross_attn.state() for layer in cache])
            return {}

        return task

    def first_token(self, *, audio: str, language: str | None) -> Task:
        """See `Runtime`."""
        loaded = self.loaded
        tokenizer, decoder = loaded.tokenizer, loaded.decoder

        def task() -> dict[str, Any]:
            mel = LogMelSpectrogram(load_audio(audio), loaded.config.n_mels)
            decoder.encode(mel.window(0)[None], [min(mel.n_frames, N_FRAMES)])
            code = language or only_language(tokenizer) or likeliest_languages(loaded)[0]
            prompt = tokenizer.sot_sequence(code, "transcribe", timestamps=True)
            decoder.decode(prompt, DecodingOptions(max_tokens=1))
            return {"tokens": 1}

        return task

    def transcribe(self, *, audio: str, language: str | None, temperature: float | None) -> Task:
        """See `Runtime`."""
        schedule = TEMPERATURES if temperature is None else (temperature,)

        def task() -> dict[str, Any]:
            result = transcribe(audio, self.loaded, language=language, temperature=schedule)
            segments = [(s.seek, s.temperature, len(s.tokens)) for s in result.segments]
            return count_segments(segments) | {"text": result.text.strip()}

        return task

    def _prompt(self, timestamps: bool) -> list[int]:
        tokenizer = self.loaded.tokenizer
        language = tokenizer.known_languages[0]
        return tokenizer.sot_sequence(language, "transcribe", timestamps=timestamps)


def random_states(batch: int, config: ModelConfig, dtype: mx.Dtype) -> mx.array:
    """Encoder states (batch, n_audio_ctx, d) of unit variance: the time of forced tokens does not
    depend on their values, only on their number."""
    shape = (batch, config.n_audio_ctx, config.n_audio_state)
    return mx.random.normal(shape, key=mx.random.key(0)).astype(dtype)


def random_mel(n_mels: int) -> mx.array:
    """Features (1, 3000, n_mels) of 30 s, within the range that log-mel has."""
    return mx.random.uniform(-1, 1, (1, N_FRAMES, n_mels), key=mx.random.key(0))


def count_segments(segments: list[tuple[int, float, int]]) -> dict[str, Any]:
    """Counts of a transcription.

    Args:
        segments: seek, temperature and number of tokens of each.

    Returns:
        `tokens`; `windows` that gave segments; `fallbacks`, the attempts beyond each first one.
    """
    windows = {seek: temperature for seek, temperature, _ in segments}
    return {
        "tokens": sum(tokens for _, _, tokens in segments),
        "windows": len(windows),
        "fallbacks": sum(
            TEMPERATURES.index(t) if t in TEMPERATURES else 0 for t in windows.values()
        ),
    }


def _frames(seconds: float) -> int:
    return min(N_FRAMES, round(seconds * 50) * FRAMES_PER_POSITION)


def _dtype_name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
