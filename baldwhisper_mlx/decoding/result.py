"""What a decoding returns, and which of several hypotheses that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.decoding.alignment import Alignment
from baldwhisper_mlx.decoding.options import DecodingOptions


@dataclass(frozen=True)
class DecodingResult:
    """One clip's output."""

    tokens: list[int]
    """Ids, a prefix and timestamps included, without prompt and end of text."""
    avg_logprob: float
    """Mean log-probability (nats) of the tokens and of the end of text, as OpenAI computes it."""
    no_speech_prob: float
    """Probability of <|nospeech|> at the start of the transcript, 0 to 1."""
    temperature: float
    """At which the tokens were sampled; 0 for the most likely ones."""
    alignment: Alignment | None = None
    """When each token was spoken, if `decode` was given `align_frames`."""
    logprobs: tuple[float, ...] | None = None
    """Log-probability (nats) of each token among those that the rules allowed."""


@dataclass(frozen=True)
class Hypothesis:
    """One of the texts that were decoded for a clip."""

    tokens: list[int]
    """Ids, timestamps included, without prefix and end of text."""
    sum_logprob: float
    """Log-probability (nats) of the tokens, and of the end of text if that was reached."""
    cumulative: npt.NDArray[np.float32]
    """Log-probability of the tokens up to each of them, (n,)."""
    path: list[int]
    """Which of the clip's hypotheses each token was decoded in; see token_tree.py."""

    def logprobs(self) -> npt.NDArray[np.float64]:
        """Log-probability (nats) of the single tokens, (n,)."""
        # Differences of cumulative log-probabilities are those of the single tokens.
        return np.diff(self.cumulative.astype(np.float64), prepend=0.0)

    def result(
        self,
        options: DecodingOptions,
        no_speech_prob: float,
        alignment: Alignment | None = None,
        given: npt.NDArray[np.float64] | None = None,
    ) -> DecodingResult:
        """This as a clip's output, after the prefix.

        Args:
            options: of the decoding.
            no_speech_prob: probability of <|nospeech|>.
            alignment: of the prefix and the tokens.
            given: log-probabilities (nats) of the tokens of the prefix, if there is one.
        """
        average = self.sum_logprob / (len(self.tokens) + 1)  # OpenAI counts the end of text, too
        return DecodingResult(
            [*options.prefix, *self.tokens],
            average,
            no_speech_prob,
            options.temperature,
            alignment,
            (*([] if given is None else given.tolist()), *self.logprobs().tolist()),
        )


def most_probable(
    hypotheses: Iterable[Hypothesis], length_penalty: float | None = None
) -> Hypothesis:
    """The first hypothesis with the highest score: log-probability over a penalty of the length.

    The penalty is OpenAI's: the length itself, or ((5 + length) / 6) ** length_penalty, which is
    that of Wu et al., arXiv 1609.08144, section 7. The end of text does not count.
    """

    def score(hypothesis: Hypothesis) -> float:
        length = float(len(hypothesis.tokens))
        if length_penalty is not None:
            penalty: float = ((5 + length) / 6) ** length_penalty
        else:
            penalty = max(length, 1)
        return hypothesis.sum_logprob / penalty

    return max(hypotheses, key=score)


def sampled(
    tokens: npt.NDArray[np.int32], sums: npt.NDArray[np.float32], eot: int, width: int
) -> list[list[Hypothesis]]:
    """The hypotheses of every clip, of which each was sampled by itself.

    Args:
        tokens: (B * width, n), those of a clip side by side; they continue past an end of text.
        sums: cumulative log-probabilities of the tokens (B * width, n), constant past it.
        eot: id of the end of text.
        width: hypotheses of each clip.
    """
    hypotheses = []
    for row, (ids, cumulative) in enumerate(zip(tokens, sums, strict=True)):
        ends = np.flatnonzero(ids == eot)
        length = int(ends[0]) if ends.size else len(ids)
        path = [row % width] * length
        hypotheses.append(
            Hypothesis(ids[:length].tolist(), float(cumulative[-1]), cumulative[:length], path)
        )
    return [hypotheses[first : first + width] for first in range(0, len(hypotheses), width)]
