"""What stands before the text of a window: previous text, and the start of the transcript.

Whisper is conditioned on the text so far as on the text of a document (Radford et al.,
arXiv 2212.04356, section 2.3); at the start of a recording that is the initial prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.transcription.options import TranscribeOptions


class PreviousText:
    """Tokens of the initial prompt, and of the text of a recording so far.

    Args:
        loaded: from `load_model`.
        options: the prompt, the task and whether there are timestamps.
    """

    def __init__(self, loaded: LoadedModel, options: TranscribeOptions) -> None:
        self._tokenizer, self._options = loaded.tokenizer, options
        self._most = loaded.config.n_text_ctx // 2 - 1
        prompt = options.initial_prompt
        self._tokens = self._tokenizer.encode(" " + prompt.strip()) if prompt else []
        self._n_initial = len(self._tokens)
        self._begin = 0
        """First token that the next window is conditioned on."""

    @property
    def spoken(self) -> list[int]:
        """The tokens without those of the initial prompt, which is no part of the transcript."""
        return self._tokens[self._n_initial :]

    @property
    def conditioning(self) -> list[int]:
        """The tokens that the next window is conditioned on; a prompt takes the last of them."""
        return self._tokens[self._begin :]

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
            conditioned: whether previous text precedes the start of the transcript.
        """
        history = self.conditioning if conditioned else []
        previous = [self._tokenizer.sot_prev, *history[-self._most :]] if history else []
        return previous + self._tokenizer.sot_sequence(
            language or "en",
            self._options.task,
            timestamps=not self._options.without_timestamps,
        )
