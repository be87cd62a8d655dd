"""The models that label: the runtime for model folders, torch for all other checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from baldwhisper_convert.labelling.measures import Output
from baldwhisper_convert.readers import hub
from baldwhisper_convert.readers.model_folder import is_model_folder
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import CONFIG_FILE

_NO_SPEECH, _IMPROBABLE = 0.6, -1.0
"""Probability of no speech, and mean log-probability, of what openai-whisper takes for silence."""


class LabelModel(Protocol):
    """A loaded model."""

    def label(self, clips: Sequence[Samples]) -> list[Output]:
        """Transcribes clips together.

        Args:
            clips: samples (n,) at 16 kHz of each, at most 30 s.

        Returns:
            One output for each clip.
        """
        ...


def load(name: str, language: str, device: str = "auto", threads: int = 1) -> LabelModel:
    """Loads a model in the way that its kind asks for.

    Args:
        name: model folder or other checkpoint, as a path or Hub id.
        language: of the speech, code or English name.
        device: torch device of a checkpoint; `auto` for a GPU if there is one.
        threads: of this process on a CPU.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a damaged model, or one that does not know the language.
    """
    path = hub.fetch(
        name, patterns=(CONFIG_FILE,), is_complete=lambda folder: (folder / CONFIG_FILE).is_file()
    )
    if is_model_folder(path):
        return _Runtime(path if Path(name).expanduser().exists() else name, language)
    return _Torch(name, language, device, threads)


class _Runtime:
    """A model folder, in the runtime."""

    def __init__(self, name: str | Path, language: str) -> None:
        from baldwhisper_mlx.checkpoint.load import load_model
        from baldwhisper_mlx.transcription.options import TranscribeOptions

        self._loaded: Any = load_model(name)
        tokenizer = self._loaded.tokenizer
        # Greedy decoding, once: what would have to be decoded again is no good label anyway.
        self._options = TranscribeOptions(
            language=tokenizer.to_language(language),
            without_timestamps=True,
            temperature=0.0,
            condition_on_previous_text=False,
            no_speech_threshold=_NO_SPEECH,
            logprob_threshold=_IMPROBABLE,
        )

    def label(self, clips: Sequence[Samples]) -> list[Output]:
        """See `LabelModel`."""
        from baldwhisper_mlx.transcription.batched import transcribe_clips

        limit = self._loaded.config.n_text_ctx // 2
        outputs = []
        for transcript in transcribe_clips(clips, self._loaded, self._options):
            segments = transcript.segments
            # The mean of openai-whisper counts the end of text of every segment, too.
            weights = [len(segment.tokens) + 1 for segment in segments]
            total = sum(
                weight * segment.avg_logprob
                for weight, segment in zip(weights, segments, strict=True)
            )
            finished = all(weight <= limit for weight in weights)
            outputs.append(Output(transcript.text.strip(), total / max(sum(weights), 1), finished))
        return outputs


class _Torch:
    """Any checkpoint, in torch."""

    def __init__(self, name: str, language: str, device: str, threads: int) -> None:
        import torch
        from transformers import WhisperFeatureExtractor

        from baldwhisper_convert.model.prompts import Prompts
        from baldwhisper_convert.model.whisper import Whisper
        from baldwhisper_convert.readers.read import read_checkpoint

        torch.set_num_threads(threads)
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(best if device == "auto" else device)
        checkpoint = read_checkpoint(name)
        self._prompts = Prompts.of(checkpoint, language)
        self._model = Whisper.from_checkpoint(checkpoint).to(self._device)
        self._extractor = WhisperFeatureExtractor(feature_size=checkpoint.dims.n_mels)

    def label(self, clips: Sequence[Samples]) -> list[Output]:
        """See `LabelModel`."""
        import torch

        from baldwhisper_convert.data.features import log_mel
        from baldwhisper_convert.model.greedy import confidence, decode_greedy, text_of

        with torch.no_grad():
            states = self._model.encoder(log_mel(clips, self._extractor).to(self._device))
        rows = decode_greedy(self._model, states, None, self._prompts, timestamps=False)
        sure = confidence(self._model, states, rows, self._prompts)
        limit = self._model.dims.n_text_ctx // 2
        outputs = []
        for row, text, (logprob, silence) in zip(
            rows, text_of(rows, self._prompts), sure, strict=True
        ):
            silent = silence > _NO_SPEECH and logprob <= _IMPROBABLE
            outputs.append(Output("" if silent else text, logprob, len(row) < limit))
        return outputs
