"""Token ids to text and back, with the vocabulary of the checkpoint.

The vocabulary is a tiktoken rank file; special tokens come from the config by name. So a model with
a vocabulary of its own, or an added language, works like OpenAI's.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import tiktoken

from baldwhisper_mlx.bounds import MOST_VOCABULARY_BYTES, read_bounded
from baldwhisper_mlx.config import CONTROL_TOKENS, ModelConfig
from baldwhisper_mlx.terminal import quoted
from baldwhisper_mlx.text.languages import ALIASES, LANGUAGES
from baldwhisper_mlx.text.vocabulary import check_vocabulary

# GPT-2's pre-tokenization, which all Whisper vocabularies were trained with.
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


TASKS = ("transcribe", "translate")
"""What a model can write: the spoken words, or their English translation."""


def read_ranks(path: str | Path) -> dict[bytes, int]:
    """Reads a tiktoken rank file: `base64(bytes) rank` for each token; empty lines are ignored.

    As `tiktoken.load.load_tiktoken_bpe`, which however caches files by name and does not say
    which line is wrong.

    Raises:
        ValueError: a line of another form, a token that occurs twice, a file that is too large or
            no regular one; the message names the file, and the line.
        FileNotFoundError: there is no such file.
    """
    content = read_bounded(Path(path), MOST_VOCABULARY_BYTES)
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            # tiktoken writes the empty token as nothing before the space, OpenAI as a single "=",
            # which strict base64 refuses.
            encoded, rank = line.rstrip().rsplit(b" ", 1)
            token = b"" if encoded == b"=" else base64.b64decode(encoded.strip(), validate=True)
            token_id = int(rank)
        except ValueError:  # binascii.Error is one
            raise ValueError(f"{path}: line {number} is not `base64 rank`") from None
        if token in ranks:
            raise ValueError(f"{path}: line {number} repeats the token {quoted(token)}")
        ranks[token] = token_id
    return ranks


ANOTHER_MODEL = (
    "choose a multilingual model with --model (in Python: load_model), such as whisper-base"
)


def named(code: str) -> str:
    """A language's code, with its English name if it has one."""
    return f"{code} ({LANGUAGES[code]})" if code in LANGUAGES else code


def check_task(task: str) -> None:
    """Makes sure that a task is one of `TASKS`.

    Raises:
        ValueError: it is not; the message lists them.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: task must be {' or '.join(TASKS)}")


def check_languages(languages: Sequence[str]) -> None:
    """Makes sure that languages to choose from are a list of texts that is not empty.

    Raises:
        ValueError: they are not.
    """
    several = not isinstance(languages, str) and isinstance(languages, Collection)
    if not several or not languages or not all(isinstance(one, str) for one in languages):
        raise ValueError(
            f"languages must be a list of codes or names such as ['en', 'fr'], not {languages!r}"
        )


@contextlib.contextmanager
def _no_panic(what: str) -> Iterator[None]:
    """Turns a panic of tiktoken's Rust code into a ValueError.

    A PanicException is no Exception, so it would end a program that reports errors file by file.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{what}: {error}") from None


class Tokenizer:
    """The vocabulary of one checkpoint.

    Args:
        ranks: bytes of each mergeable token to its id.
        config: the checkpoint's config, for its special tokens.
        source: file that the ranks come from, for messages.

    Raises:
        ValueError: tokens are missing, share an id, or have one that is not theirs.
    """

    def __init__(
        self, ranks: dict[bytes, int], config: ModelConfig, source: str = "vocabulary"
    ) -> None:
        special = config.special_tokens
        check_vocabulary(ranks, special, config.timestamp_begin, source)
        with _no_panic(source):
            self.encoding = tiktoken.Encoding(
                name="whisper", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=special
            )
        self.special_tokens = special
        self.is_multilingual = config.is_multilingual
        self._suppress_tokens = config.suppress_tokens
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
        # English-only vocabularies have all languages, but the models were trained on English.
        every = tuple(self.languages) if self.is_multilingual else ("en",)
        self.known_languages = every if config.languages is None else config.languages
        """Codes of the languages that the model was trained for; the others are refused."""
        self.is_limited = len(self.known_languages) < len(self.languages)
        """Whether the vocabulary has languages that the model was not trained for."""

    def encode(self, text: str) -> list[int]:
        """Token ids of text; text that looks like a special token is just text."""
        with _no_panic("the text cannot be split into tokens"):
            return self.encoding.encode(text, disallowed_special=())

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids, without timestamps, and with special tokens by name if asked."""
        end = self.timestamp_begin if special else self.eot
        return self.encoding.decode([token for token in tokens if token < end])

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 of a text token, which may be a part of a character only."""
        return self.encoding.decode_single_token_bytes(token)

    def to_language(self, language: str) -> str:
        """The code of a language given by code or English name, in any case.

        Raises:
            ValueError: this model does not know the language; the message lists those it knows.
        """
        wanted = language.strip().lower()
        codes = {name: code for code, name in LANGUAGES.items()} | ALIASES
        for code in (wanted, codes.get(wanted)):
            if code in self.known_languages:
                return code
        listed = ", ".join(map(named, self.known_languages))
        for code in (wanted, codes.get(wanted)):
            if code in self.languages or code in LANGUAGES:
                raise ValueError(
                    f"this model does not know {named(code)}, only {listed}; {ANOTHER_MODEL}"
                )
        raise ValueError(f"unknown language {quoted(language)}; this model knows {listed}")

    def candidates(self, languages: Sequence[str] | None) -> tuple[str, ...]:
        """Codes of the languages among which one is detected.

        Args:
            languages: codes or English names; None for all that the model knows.

        Raises:
            ValueError: none, or one that the model does not know.
        """
        if languages is None:
            return self.known_languages
        check_languages(languages)
        return tuple(dict.fromkeys(map(self.to_language, languages)))

    def check_multilingual(self) -> None:
        """Makes sure that the model knows more languages than one.

        Raises:
            ValueError: it knows one only.
        """
        if len(self.known_languages) == 1:
            raise ValueError(
                f"multilingual: this model knows only {named(self.known_languages[0])}; "
                f"{ANOTHER_MODEL}"
            )

    def check_task(self, task: str) -> None:
        """Makes sure that the model can do a task.

        Raises:
            ValueError: an unknown task, or a translation by a model that knows English only.
        """
        check_task(task)
        if task == "translate" and self.known_languages == ("en",):
            raise ValueError(
                "task translate: this model knows English only and cannot translate; "
                f"{ANOTHER_MODEL}"
            )

    def sot_sequence(self, language: str, task: str, *, timestamps: bool) -> list[int]:
        """The tokens that begin a transcript: the language, the task, and whether there are times.

        Args:
            language: a code of `languages`; English-only models ignore it.
            task: "transcribe", or "translate" into English.
            timestamps: whether the output carries timestamp tokens.

        Raises:
            ValueError: an unknown task, or a translation by a model that knows English only.
        """
        self.check_task(task)
        sequence = [self.sot]
        if self.is_multilingual:
            sequence += [self.languages[language], self.special_tokens[f"<|{task}|>"]]
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
    def control_tokens(self) -> tuple[int, ...]:
        """Ids of the control tokens that only prompts have."""
        names = set(CONTROL_TOKENS) - {"<|endoftext|>", "<|notimestamps|>"}
        return tuple(sorted(self.special_tokens[name] for name in names))

    @cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """Ids that are never chosen: those of the config and `control_tokens`.

        A config without any means OpenAI's list, `non_speech_tokens`.
        """
        own = self._suppress_tokens
        return tuple(
            sorted({*(self.non_speech_tokens if own is None else own), *self.control_tokens})
        )

    @cached_property
    def blank_tokens(self) -> tuple[int, ...]:
        """Ids that are not chosen first: a lone space, and end of text."""
        return (*self.encode(" "), self.eot)
