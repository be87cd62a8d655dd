"""The peer on the same MLX: the teacher in mlx-whisper, with the same weights.

It separates the gain of the runtime from the gain of compression. mlx-whisper reads its own format,
so a folder is written from an exported model; it gets the same BLAS, because baldwhisper_mlx is
imported before MLX.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from baldwhisper_mlx.audio.features import N_FRAMES
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.bench.runtimes import Task, count_segments, random_mel, random_states
from baldwhisper_mlx.checkpoint.mlx_whisper_writer import best_dtype
from baldwhisper_mlx.transcription.fallback import TEMPERATURES


class MlxWhisper:
    """A model in mlx-whisper, with its defaults except for float32 on a CPU.

    Args:
        model: folder that `mlx_whisper_writer.write_folder` wrote.
    """

    def __init__(self, model: str) -> None:
        # mlx_whisper.transcribe is a function of the same name, and hides the module
        import importlib

        module = importlib.import_module("mlx_whisper.transcribe")

        self.folder = model
        self.dtype = best_dtype()
        self.fp16 = self.dtype == mx.float16
        self.module: Any = module
        self.model: Any = module.ModelHolder.get_model(model, self.dtype)

    def describe(self) -> dict[str, Any]:
        """Version and dtype."""
        return {
            "runtime": f"mlx-whisper {version('mlx-whisper')}",
            "memory_dtype": "float16" if self.fp16 else "float32",
        }

    def decode(self, *, batch: int, tokens: int, timestamps: bool) -> Task:
        """See `Runtime`."""
        from mlx_whisper.decoding import DecodingOptions, decode

        dims = self.model.dims
        states = random_states(batch, dims, self.dtype)
        mx.eval(states)
        options = DecodingOptions(
            language="en",
            without_timestamps=not timestamps,
            suppress_tokens=f"-1,{self._eot()}",
            sample_len=tokens,
            fp16=self.fp16,
        )

        def task() -> dict[str, Any]:
            results = decode(self.model, states, options)
            return {"tokens": sum(len(result.tokens) for result in results)}

        return task

    def encode(self, *, seconds: float) -> Task:
        """See `Runtime`; always 30 s, whatever `seconds`."""
        mel = random_mel(self.model.dims.n_mels).astype(self.dtype)
        mx.eval(mel)

        def task() -> dict[str, Any]:
            states = self.model.encoder(mel)
            cross = [block.cross_attn for block in self.model.decoder.blocks]
            mx.eval([(layer.key(states), layer.value(states)) for layer in cross])
            return {}

        return task

    def first_token(self, *, audio: str, language: str | None) -> Task:
        """See `Runtime`."""
        from mlx_whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim
        from mlx_whisper.decoding import DecodingOptions

        def task() -> dict[str, Any]:
            samples, bins = load_audio(audio), self.model.dims.n_mels
            mel = log_mel_spectrogram(samples, n_mels=bins, padding=N_SAMPLES)
            window = pad_or_trim(mel[:N_FRAMES], N_FRAMES, axis=-2).astype(self.dtype)
            code = language or "en"
            if language is None and self.model.is_multilingual:
                _, probabilities = self.model.detect_language(window)
                code = max(probabilities, key=probabilities.get)
            options = DecodingOptions(language=code, sample_len=1, fp16=self.fp16)
            return {"tokens": len(self.model.decode(window, options).tokens)}

        return task

    def transcribe(self, *, audio: str, language: str | None, temperature: float | None) -> Task:
        """See `Runtime`."""
        schedule = TEMPERATURES if temperature is None else (temperature,)

        def task() -> dict[str, Any]:
            result = self.module.transcribe(
                load_audio(audio),
                path_or_hf_repo=self.folder,
                language=language,
                temperature=schedule,
                fp16=self.fp16,
            )
            segments = [(s["seek"], s["temperature"], len(s["tokens"])) for s in result["segments"]]
            return count_segments(segments) | {"text": result["text"].strip()}

        return task

    def _eot(self) -> int:
        from mlx_whisper.tokenizer import get_tokenizer

        multilingual = self.model.is_multilingual
        eot: int = get_tokenizer(multilingual, num_languages=self.model.num_languages).eot
        return eot


def print_text() -> None:
    """The shortest program that does what `baldwhisper transcribe` does; for `cold`.

    Its arguments: folder, audio file, language (empty to detect it), temperature or None.
    """
    folder, audio, language, temperature = sys.argv[1:]
    runtime = MlxWhisper(folder)
    task = runtime.transcribe(
        audio=audio,
        language=language or None,
        temperature=None if temperature == "None" else float(temperature),
    )
    print(task()["text"], flush=True)
