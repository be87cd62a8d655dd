"""Which words of a draft are confirmed while somebody still speaks.

A policy sees the words that the model writes behind those already confirmed, each time the speech
so far is decoded, and says how many of them are confirmed. The next decoding begins with the
confirmed words, so that confirmed text only ever grows. Standard library only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from baldwhisper_mlx.config import TIME_PRECISION


@dataclass(frozen=True)
class DraftWord:
    """A word of a draft; times are seconds from the start of the utterance."""

    text: str
    """With its leading space."""
    tokens: tuple[int, ...]
    start: float
    end: float
    attended: float
    """The latest audio to which one of its tokens attends most."""


class Policy(Protocol):
    """How the words of a draft are confirmed."""

    def confirm(self, words: Sequence[DraftWord], received: float) -> int:
        """How many of the words are confirmed, from the first one on.

        Args:
            words: of the newest decoding, behind the words confirmed so far.
            received: seconds of the utterance so far.
        """
        ...

    def reset(self) -> None:
        """Forgets the utterance, because the next one begins."""
        ...


class AlignAtt:
    """Confirms a word once the audio it attends to is far from the end of what was received.

    Papi et al., "AlignAtt: Using Attention-based Audio-Translation Alignments as a Guide for
    Simultaneous Speech Translation", arXiv 2305.11408; here on the attention of Whisper's alignment
    heads, and by whole words. The last word of a draft can still become a longer one, and a mark at
    the end another, so they are not confirmed.

    Args:
        frame_threshold: encoder frames (20 ms) that must lie between the two.

    Raises:
        ValueError: it is negative.
    """

    def __init__(self, frame_threshold: int = 25) -> None:
        if frame_threshold < 0:
            raise ValueError(f"frame_threshold must be 0 or more, not {frame_threshold}")
        self.frame_threshold = frame_threshold

    def confirm(self, words: Sequence[DraftWord], received: float) -> int:
        """As in `Policy`."""
        for count, word in enumerate(words[:-1]):
            if round((received - word.attended) / TIME_PRECISION) < self.frame_threshold:
                return count
        return max(0, len(words) - 1)

    def reset(self) -> None:
        """As in `Policy`; there is nothing to forget."""


class LocalAgreement:
    """Confirms the words on which the last decodings agree: LocalAgreement-n.

    Liu, Spanakis and Niehues, "Low-Latency Sequence-to-Sequence Speech Recognition and Translation
    by Partial Hypothesis Selection", arXiv 2005.11185; with n = 2 the policy of whisper-streaming.
    It needs no attention.

    Args:
        n: decodings that have to agree.

    Raises:
        ValueError: fewer than 2.
    """

    def __init__(self, n: int = 2) -> None:
        if n < 2:
            raise ValueError(f"LocalAgreement needs at least 2 decodings, not {n}")
        self.n = n
        self._earlier: list[list[str]] = []

    def confirm(self, words: Sequence[DraftWord], received: float) -> int:
        """As in `Policy`."""
        texts = [word.text for word in words]
        drafts = [*self._earlier, texts]
        count = 0
        if len(drafts) == self.n:
            columns = zip(*drafts, strict=False)
            count = sum(1 for _ in itertools.takewhile(lambda row: len(set(row)) == 1, columns))
        # The next draft comes without the words that are confirmed now.
        self._earlier = [draft[count:] for draft in drafts][1 - self.n :]
        return count

    def reset(self) -> None:
        """As in `Policy`."""
        self._earlier = []
