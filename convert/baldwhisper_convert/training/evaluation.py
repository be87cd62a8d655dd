"""Evaluation on development data during training: the objective's loss terms and word errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from baldwhisper_convert.data.batches import Mix, collate
from baldwhisper_convert.data.prepared import SPEECH, Windows
from baldwhisper_convert.data.windows import WINDOW_POSITIONS
from baldwhisper_convert.data.word_errors import word_error_rate, words_wrong
from baldwhisper_convert.model.greedy import decode_greedy, text_of
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.progress import progress_bar

FIXED = Mix(timestamps=0.5, prompts=0.0)
"""Half of the windows have timestamps, the same ones in every evaluation."""

MOST_SHORT = 4
"""A batch has at most this many times as many short windows as windows of 30 s.

The number of tokens sets the limit: the losses keep logits over the vocabulary for each of them."""


class Evaluator:
    """Scores a model on development windows.

    Args:
        data: the windows; their transcripts are the references.
        prompts: special tokens of the model's vocabulary.
        objective: what training minimizes; if given, its terms are reported too.
        batch_size: windows of 30 s per batch; of short ones up to `MOST_SHORT` times as many.
        device: torch device.
    """

    def __init__(
        self,
        data: Windows,
        prompts: Prompts,
        objective: nn.Module | None = None,
        *,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data, self.prompts, self.objective = data, prompts, objective
        self.batch_size, self.device = batch_size, torch.device(device)
        self._bar: Any = None

    def __call__(self, model: Whisper) -> dict[str, float]:
        """Returns the mean loss terms and `wer`, which is also the `score`.

        Windows without text have no word error rate; their score is the sum of the loss terms.

        Raises:
            ValueError: neither text nor an objective.
        """
        parts = self.parts()
        turns = len(parts) * (bool(self.objective) + self.data.labelled)
        with progress_bar(turns, "evaluate", "batch", leave=False) as bar:
            self._bar = bar
            results = self.losses(model, parts) if self.objective else {}
            if not self.data.labelled:
                if self.objective is None:
                    raise ValueError(
                        "the development data has no text, so there is nothing to score"
                    )
                return results | {"score": sum(results.values())}
            wer = self.wer(model, parts)
        return results | {"wer": wer, "score": wer}

    def _advance(self) -> None:
        """Moves the bar of an evaluation by a batch."""
        if self._bar is not None:
            self._bar.update()

    def parts(self) -> list[list[int]]:
        """Splits all windows into batches of similar length, limited by their padded size."""
        windows = self.data.windows
        parts: list[list[int]] = [[]]
        for i in sorted(range(len(windows)), key=lambda i: windows[i].positions):
            padded = windows[i].positions * (len(parts[-1]) + 1)
            if (
                len(parts[-1]) == MOST_SHORT * self.batch_size
                or padded > self.batch_size * WINDOW_POSITIONS
            ):
                parts.append([])
            parts[-1].append(i)
        return [part for part in parts if part]

    @torch.no_grad()
    def losses(self, model: Whisper, parts: Sequence[Sequence[int]]) -> dict[str, float]:
        """Averages every loss term and metric of the objective over all positions."""
        sums: dict[str, float] = {}
        positions = {"tokens": 0, "audio": 0}
        of_audio: set[str] = set()
        for part in parts:
            self._advance()
            batch = collate(self.data, part, self.prompts, FIXED).to(self.device)
            terms = self.objective(model, batch) if self.objective else None
            if terms is not None:
                positions["tokens"] += terms.positions
                positions["audio"] += batch.audio_positions
                of_audio.update(terms.audio)
                for name, value in (terms.losses | terms.metrics | terms.audio).items():
                    sums[name] = sums.get(name, 0.0) + float(value)
        return {
            name: value / max(1, positions["audio" if name in of_audio else "tokens"])
            for name, value in sums.items()
        }

    def wer(self, model: Whisper, parts: Sequence[Sequence[int]]) -> float:
        """Word error rate of greedy decoding without timestamps."""
        texts = self.transcribe(model, parts)
        return word_error_rate([self.data.windows[i].text for i in texts], list(texts.values()))

    def word_errors(self, model: Whisper) -> list[tuple[int, int]]:
        """Word errors and reference words of every window of speech, in order; as in `wer`."""
        texts = self.transcribe(model, self.parts())
        return [words_wrong(self.data.windows[i].text, texts[i]) for i in sorted(texts)]

    @torch.no_grad()
    def transcribe(self, model: Whisper, parts: Sequence[Sequence[int]]) -> dict[int, str]:
        """Decodes the windows of speech greedily, without timestamps.

        Returns:
            Texts by the number of the window; windows of silence are left out.
        """
        texts: dict[int, str] = {}
        for part in parts:
            self._advance()
            spoken = [i for i in part if self.data.windows[i].kind == SPEECH]
            if not spoken:
                continue
            batch = collate(self.data, spoken, self.prompts, FIXED).to(self.device)
            states, mask = batch.encode(model)
            rows = decode_greedy(model, states, mask, self.prompts, timestamps=False)
            texts |= dict(zip(spoken, text_of(rows, self.prompts), strict=True))
        return texts
