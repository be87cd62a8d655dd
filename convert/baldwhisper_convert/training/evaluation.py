"""Evaluation on development data during training: the objective's loss terms and word errors.

Several processes share the windows. What they find is put together in the order in which one
process would find it, so the results are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from baldwhisper_convert.data.batches import Mix, collate
from baldwhisper_convert.data.prepared import SPEECH, Windows
from baldwhisper_convert.data.windows import WINDOW_POSITIONS
from baldwhisper_convert.data.word_errors import word_error_rate, words_wrong
from baldwhisper_convert.model.greedy import decode_greedy, text_of
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.processes import Processes
from baldwhisper_convert.progress import progress_bar

T = TypeVar("T")
_Terms = tuple[dict[str, float], set[str], dict[str, int]]

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
        processes: that share the windows; all of them must call the methods. If None, this process
            evaluates alone.
    """

    def __init__(
        self,
        data: Windows,
        prompts: Prompts,
        objective: nn.Module | None = None,
        *,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes or Processes(0, 1, torch.device(device))
        self.data, self.prompts, self.objective = data, prompts, objective
        self.batch_size, self.device = batch_size, torch.device(device)
        self._bar: Any = None

    def __call__(self, model: Whisper) -> dict[str, float]:
        """Returns the mean loss terms and `wer`, which is also the `score`.

        If the windows are of several languages, also the word error rate of each, as `wer_fr`.
        Windows without text have no word error rate; their score is the sum of the loss terms.

        Raises:
            ValueError: neither text nor an objective.
        """
        if not self.data.labelled and self.objective is None:
            raise ValueError("the development data has no text, so there is nothing to score")
        parts = self.parts()
        with self._progress(len(self._own(parts)) * (bool(self.objective) + self.data.labelled)):
            results = self.losses(model, parts) if self.objective else {}
            if not self.data.labelled:
                return results | {"score": sum(results.values())}
            rates = self.word_error_rates(model, parts)
        return results | rates | {"score": rates["wer"]}

    @contextmanager
    def _progress(self, batches: int) -> Iterator[None]:
        """Draws a bar for an evaluation in the block, in the main process."""
        quiet = not self.processes.main
        bar = progress_bar(batches, "evaluate", "batch", leave=False, disable=quiet, part=True)
        with bar as self._bar:
            yield
        self._bar = None

    def parts(self) -> list[list[int]]:
        """Splits all windows into batches of similar length, limited by their padded size.

        A batch is of one language, because it is decoded with one prompt.
        """
        windows, languages = self.data.windows, self.data.languages
        parts: list[list[int]] = [[]]
        for i in sorted(range(len(windows)), key=lambda i: (languages[i], windows[i].positions)):
            padded = windows[i].positions * (len(parts[-1]) + 1)
            if (
                len(parts[-1]) == MOST_SHORT * self.batch_size
                or padded > self.batch_size * WINDOW_POSITIONS
                or (parts[-1] and languages[parts[-1][-1]] != languages[i])
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
        for values, on_audio, counts in self._shared(parts, partial(self._terms, model)):
            for name in positions:
                positions[name] += counts[name]
            of_audio |= on_audio
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
        return {
            name: value / max(1, positions["audio" if name in of_audio else "tokens"])
            for name, value in sums.items()
        }

    def _terms(self, model: Whisper, part: Sequence[int]) -> _Terms:
        """Sums of the loss terms over a batch, which of them are of audio, and its positions."""
        assert self.objective is not None
        batch = collate(self.data, part, self.prompts, FIXED).to(self.device)
        terms = self.objective(model, batch)
        summed = terms.losses | terms.metrics | terms.audio
        counts = {"tokens": int(terms.positions), "audio": batch.audio_positions}
        return {name: float(value) for name, value in summed.items()}, set(terms.audio), counts

    def _shared(
        self, parts: Sequence[Sequence[int]], call: Callable[[Sequence[int]], T]
    ) -> list[T]:
        """What the function returns for each part, computed by all processes together."""
        found = []
        for part in self._own(parts):
            found.append(call(part))
            if self._bar is not None:
                self._bar.update()
        gathered, count = self.processes.gather(found), self.processes.count
        return [gathered[i % count][i // count] for i in range(len(parts))]

    def _own(self, parts: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """The parts of this process; neighbours are equally long, so all have as much to do."""
        return parts[self.processes.rank :: self.processes.count]

    def word_error_rates(self, model: Whisper, parts: Sequence[Sequence[int]]) -> dict[str, float]:
        """Word error rates of greedy decoding without timestamps: `wer`, and each language's."""
        texts = self.transcribe(model, parts)
        languages = self.data.languages
        by_language = {
            f"wer_{language}": [i for i in texts if languages[i] == language]
            for language in sorted({languages[i] for i in texts})
        }
        groups = {"wer": list(texts)} | (by_language if len(by_language) > 1 else {})
        return {
            name: word_error_rate(
                [self.data.windows[i].text for i in group], [texts[i] for i in group]
            )
            for name, group in groups.items()
        }

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
        for found in self._shared(parts, partial(self._decode, model)):
            texts |= found
        return texts

    def _decode(self, model: Whisper, part: Sequence[int]) -> dict[int, str]:
        """Texts of the windows of speech in a batch."""
        spoken = [i for i in part if self.data.windows[i].kind == SPEECH]
        if not spoken:
            return {}
        batch = collate(self.data, spoken, self.prompts, FIXED).to(self.device)
        states, mask = batch.encode(model)
        prompts = self.prompts.for_language(self.data.languages[spoken[0]])
        rows = decode_greedy(model, states, mask, prompts, timestamps=False)
        return dict(zip(spoken, text_of(rows, self.prompts), strict=True))
