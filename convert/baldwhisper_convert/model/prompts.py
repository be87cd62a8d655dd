"""Whisper's token sequences: previous text, start of transcript, text with timestamps, end.

As in Radford et al., arXiv 2212.04356, figure 1. Text is encoded with the runtime's tokenizer, so
that a student is trained on the tokens which the runtime decodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_mlx.config import N_TIMESTAMPS, TIME_PRECISION
from baldwhisper_mlx.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompts:
    """Builds decoder sequences for one tokenizer, language and context length."""

    tokenizer: Tokenizer
    n_text_ctx: int
    language: str = "en"

    @classmethod
    def of(cls, checkpoint: Checkpoint, language: str = "en") -> Prompts:
        """The sequences for a checkpoint's vocabulary.

        Args:
            checkpoint: the model.
            language: code or English name.

        Raises:
            ValueError: the vocabulary has no such language.
        """
        tokenizer = checkpoint.tokenizer()
        return cls(tokenizer, checkpoint.dims.n_text_ctx, tokenizer.to_language(language))

    def for_language(self, language: str) -> Prompts:
        """The same for another language, given by code or English name."""
        if language == self.language:
            return self
        return dataclasses.replace(self, language=self.tokenizer.to_language(language))

    @property
    def end(self) -> int:
        """Id of <|endoftext|>."""
        return self.tokenizer.eot

    def sot_sequence(self, *, timestamps: bool) -> list[int]:
        """Start of transcript, language and task (if multilingual), and no timestamps."""
        return self.tokenizer.sot_sequence(self.language, "transcribe", timestamps=timestamps)

    def timestamp(self, seconds: float) -> int:
        """The token nearest to a time within the window, 0 to 30 s."""
        position = min(max(round(seconds / TIME_PRECISION), 0), N_TIMESTAMPS - 1)
        return self.tokenizer.timestamp_begin + position

    def with_timestamps(self, tokens: Sequence[int], keep: bool) -> list[int]:
        """The tokens with or without those that are timestamps."""
        return [token for token in tokens if keep or token < self.tokenizer.timestamp_begin]

    def sequence(
        self, tokens: Sequence[int], *, timestamps: bool, previous: Sequence[int] = ()
    ) -> tuple[list[int], int]:
        """A whole decoder sequence.

        Args:
            tokens: text, with timestamps if they are wanted.
            timestamps: whether the sequence starts in the mode with timestamps.
            previous: text tokens of the previous windows; the last ones are used, at most half
                the context, as in OpenAI's `transcribe`.

        Returns:
            The tokens, <|endoftext|> last, and the position of <|startoftranscript|>.

        Raises:
            ValueError: the sequence is longer than the text context even without `previous`.
        """
        body = [*self.sot_sequence(timestamps=timestamps), *tokens, self.end]
        # The last token is a target and not an input, so one more than the context fits.
        room = self.n_text_ctx + 1 - len(body)
        if room < 0:
            raise ValueError(f"{len(body)} tokens, more than the {self.n_text_ctx} of the context")
        kept = min(len(previous), self.n_text_ctx // 2 - 1, room - 1)
        if kept <= 0:
            return body, 0
        prompt = [self.tokenizer.sot_prev, *previous[-kept:]]
        return prompt + body, len(prompt)
