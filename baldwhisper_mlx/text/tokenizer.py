"""Token ids to text and back, with the vocabulary of the checkpoint.

The vocabulary is a tiktoken rank file; special tokens come from the config by name. So a model with
a vocabulary of its own, or an added language, works like OpenAI's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tiktoken

from baldwhisper_mlx.config import CONTROL_TOKENS, ModelConfig
from baldwhisper_mlx.text.languages import ALIASES, LANGUAGES

# GPT-2's pre-tokenization, which all Whisper vocabularies were trained with.
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


TASKS = ("transcribe", "translate")
"""What a model can write: the spoken words, or their English translation."""


def read_ranks(path: str | Path) -> dict[bytes, int]:
    """Reads a tiktoken rank file: a line per token, its bytes in base64 and its id.

    Raises:
        ValueError: a line that is neither; the message names file and line.
        FileNotFoundError: there is no such file.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            # OpenAI's file writes the empty token as a lone "=", which only lax base64 takes.
            ranks[b"" if token == b"=" else base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f"{path}: line {number} is not `base64 rank`") from None
    return ranks


def check_task(task: str) -> None:
    """Makes sure that a task is one of `TASKS`.

    Raises:
        ValueError: it is not; the message lists them.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: task must be {' or '.join(TASKS)}")


class Tokenizer:
    """The vocabulary of one checkpoint.

    Args:
        ranks: bytes of each mergeable token to its id.
        config: the checkpoint's config, for its special tokens.

    Raises:
        ValueError: two tokens share an id, or an id is not below the timestamps.
    """

    def __init__(self, ranks: dict[bytes, int], config: ModelConfig) -> None:
        special = config.special_tokens
        ids = [*ranks.values(), *special.values()]
        if len(set(ids)) != len(ids) or max(ids) >= config.timestamp_begin:
            raise ValueError("vocabulary: token ids overlap each other or the timestamps")
        if max(ranks.values()) > special["<|endoftext|>"]:
            raise ValueError("vocabulary: text tokens above <|endoftext|>, which no Whisper has")
        self.encoding = tiktoken.Encoding(
            name="whisper", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=special
        )
        self.special_tokens = special
        self.is_multilingual = config.is_multilingual
        self.timestamp_begin = config.timestamp_begin
        self.eot = special["<|endoftext|>"]
        self.sot = special["<|startoftranscript|>"]
        self.sot_prev = special["<|startofprev|>"]
        self.no_speech = special["<|nospeech|>"]
        self.no_timestamps = special["<|notimestamps|>"]
        self.languages = {
            name[2:-2]: token for name, token in special.items() if name not in CONTROL_TOKENS
        }
        """Language code to token id."""

    def encode(self, text: str) -> list[int]:
        """Token ids of text; text that looks like a special token is just text."""
        return self.encoding.encode(text, disallowed_special=())

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids, without timestamps, and with special tokens by name if asked."""
        end = self.timestamp_begin if special else self.eot
        return self.encoding.decode([token for token in tokens if token < end])

    def to_language(self, language: str) -> str:
        """The code of a language given by code or English name, in any case.

        Raises:
            ValueError: this model has no such language; the message lists those it has.
        """
        # English-only vocabularies have all languages, but the models were trained on English.
        spoken = list(self.languages) if self.is_multilingual else ["en"]
        wanted = language.strip().lower()
        codes = {name: code for code, name in LANGUAGES.items()} | ALIASES
        for code in (wanted, codes.get(wanted)):
            if code in spoken:
                return code
        listed = ", ".join(f"{c} ({LANGUAGES[c]})" if c in LANGUAGES else c for c in spoken)
        raise ValueError(f"unknown language {language!r}; this model knows {listed}")

    def sot_sequence(self, language: str, task: str, *, timestamps: bool) -> list[int]:
        """The tokens that begin a transcript: the language, the task, and whether there are times.

        Args:
            language: a code of `languages`; English-only models ignore it.
            task: "transcribe", or "translate" into English.
            timestamps: whether the output carries timestamp tokens.

        Raises:
            ValueError: an unknown task, or a translation by an English-only model.
        """
        check_task(task)
        sequence = [self.sot]
        if self.is_multilingual:
            sequence += [self.languages[language], self.special_tokens[f"<|{task}|>"]]
        elif task == "translate":
            raise ValueError("task: this model knows English only and cannot translate")
        return sequence if timestamps else [*sequence, self.no_timestamps]

    @cached_property
    def non_speech_tokens(self) -> tuple[int, ...]:
        """Ids that annotate rather than transcribe: brackets, notes, speaker dashes.

        OpenAI's list; they are suppressed so that the output has only spoken words.
        """
        symbols = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』']
        symbols += ["<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))"]
        symbols += ["(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪"]
        notes = "♩♪♫♬♭♮♯"
        # Dashes and quotes may stand inside a sentence, but not open a word.
        ids = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in [*symbols, *notes]:
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                # A note of several tokens starts with bytes that only such symbols have.
                if len(tokens) == 1 or symbol in notes:
                    ids.add(tokens[0])
        return tuple(sorted(ids))

    @cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """Ids that are never chosen: `non_speech_tokens`, and control tokens of the prompt."""
        control = set(CONTROL_TOKENS) - {"<|endoftext|>", "<|notimestamps|>"}
        return tuple(
            sorted({*self.non_speech_tokens, *(self.special_tokens[name] for name in control)})
        )

    @cached_property
    def blank_tokens(self) -> tuple[int, ...]:
        """Ids that are not chosen first: a lone space, and end of text."""
        return (*self.encode(" "), self.eot)
