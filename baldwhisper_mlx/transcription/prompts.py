"""What stands before the text of a window: hotwords, previous text, the start of the transcript.

Whisper is conditioned on the text so far as on the text of a document (Radford et al.,
arXiv 2212.04356, section 2.3); at the start of a recording that is the initial prompt. Hotwords
stand before it in every window, as in faster-whisper. All together has half of the text context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.text.tokenizer import Tokenizer
from baldwhisper_mlx.transcription.options import TranscribeOptions


@dataclass(frozen=True)
class GivenText:
    """The texts that the user gives, as tokens, cut to what the text context has room for."""

    hotwords: list[int]
    initial: list[int]
    prefix: list[int]
    """With the timestamp that it begins with, if outputs have timestamps."""
    room: int
    """Tokens of hotwords, initial prompt and previous text together."""
    cut: tuple[str, ...]
    """What was cut, for people."""

    @classmethod
    def of(cls, loaded: LoadedModel, options: TranscribeOptions) -> GivenText:
        """Tokens of the texts in the options."""
        tokenizer, room = loaded.tokenizer, loaded.config.n_text_ctx // 2 - 1
        hotwords = _tokens(tokenizer, options.hotwords)
        initial = _tokens(tokenizer, options.initial_prompt)
        prefix = _tokens(tokenizer, options.prefix)
        rest = room - min(len(hotwords), room)
        # Hotwords and a prefix keep their beginning. Of a text before the audio the end counts.
        kept = {
            "hotwords": hotwords[:room],
            "initial_prompt": _last(initial, rest),
            "prefix": prefix[: loaded.config.n_text_ctx // 4],  # and as many behind it
        }
        given = {"hotwords": hotwords, "initial_prompt": initial, "prefix": prefix}
        cut = tuple(
            f"{name}: {len(kept[name])} of {len(tokens)} tokens are used, the "
            f"{'last' if name == 'initial_prompt' else 'first'} ones; there is no room for more in "
            "the text context"
            for name, tokens in given.items()
            if len(kept[name]) < len(tokens)
        )
        begin = [] if options.without_timestamps or not prefix else [tokenizer.timestamp_begin]
        return cls(kept["hotwords"], kept["initial_prompt"], begin + kept["prefix"], room, cut=cut)


class PreviousText:
    """Tokens of the initial prompt, and of the text of a recording so far.

    Args:
        loaded: from `load_model`.
        options: the prompts, the task and whether there are timestamps.
    """

    def __init__(self, loaded: LoadedModel, options: TranscribeOptions) -> None:
        self._tokenizer, self._options = loaded.tokenizer, options
        self._given = GivenText.of(loaded, options)
        self._tokens = list(self._given.initial)
        self._n_initial = len(self._tokens)
        self._begin = 0
        """First token that the next window is conditioned on, unless the prompt is carried."""

    @property
    def spoken(self) -> list[int]:
        """The tokens without those of the initial prompt, which is no part of the transcript."""
        return self._tokens[self._n_initial :]

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens with which the next window's output begins: until there is text, the prefix."""
        return () if self.spoken else tuple(self._given.prefix)

    @property
    def conditioning(self) -> list[int]:
        """The tokens that the next window is conditioned on, all that there is room for."""
        given = self._given
        room = given.room - len(given.hotwords)
        if not self._options.carry_initial_prompt:
            return given.hotwords + _last(self._tokens[self._begin :], room)
        text = self._tokens[max(self._begin, self._n_initial) :]
        return given.hotwords + given.initial + _last(text, room - len(given.initial))

    @property
    def copyable(self) -> list[int]:
        """What the model may copy where nobody speaks: all that it is given before the audio."""
        return [*self.conditioning, *self.prefix]

    def append(self, tokens: Sequence[int]) -> None:
        """Adds the tokens of a window."""
        self._tokens += tokens

    def forget(self) -> None:
        """Later windows are not conditioned on what has been written so far."""
        self._begin = len(self._tokens)

    def prompt(self, language: str | None, *, conditioned: bool = True) -> list[int]:
        """Tokens before the text of the next window.

        Args:
            language: code; None before it is detected.
            conditioned: whether hotwords and previous text precede the start of the transcript.
        """
        text = self.conditioning if conditioned else []
        previous = [self._tokenizer.sot_prev, *text] if text else []
        return previous + self._tokenizer.sot_sequence(
            language or "en",
            self._options.task,
            timestamps=not self._options.without_timestamps,
        )


def _tokens(tokenizer: Tokenizer, text: str | None) -> list[int]:
    return tokenizer.encode(" " + text.strip()) if text and text.strip() else []


def _last(tokens: Sequence[int], most: int) -> list[int]:
    """The last tokens, at most so many."""
    return list(tokens[max(0, len(tokens) - most) :])
