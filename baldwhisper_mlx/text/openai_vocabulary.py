"""OpenAI's two vocabularies: their special tokens, and their rank files in this package.

Checkpoints in OpenAI's and mlx-whisper's formats have no tokenizer of their own; their
vocabulary follows from the size of the token embedding. Standard library only.
"""

from __future__ import annotations

from pathlib import Path

from baldwhisper_mlx.config import CONTROL_TOKENS, N_TIMESTAMPS
from baldwhisper_mlx.text.languages import LANGUAGES

ENGLISH_ONLY_SIZE = 51864
"""Tokens of OpenAI's English-only models; the multilingual ones have more
(`whisper.model.Whisper.is_multilingual`)."""

_ASSETS = Path(__file__).parent.parent / "assets"
_MULTILINGUAL, _ENGLISH = "multilingual.tiktoken", "tiny-en/vocabulary.tiktoken"


def special_token_ids(n_ranks: int, n_vocab: int) -> dict[str, int]:
    """Special tokens of an OpenAI model, below the timestamps, with their ids.

    Follows `whisper.tokenizer.get_encoding`: end of text, start of transcript, as many
    languages as `n_vocab` has room for, the other control tokens.

    Args:
        n_ranks: number of mergeable tokens.
        n_vocab: number of all tokens, timestamps included.

    Raises:
        ValueError: `n_vocab` has room for no language or for more than OpenAI's.
    """
    count = n_vocab - n_ranks - len(CONTROL_TOKENS) - N_TIMESTAMPS
    if not 0 < count <= len(LANGUAGES):
        raise ValueError(
            f"n_vocab {n_vocab} is not that of an OpenAI Whisper: {n_ranks} text tokens would "
            f"leave {count} language tokens, expected 1 to {len(LANGUAGES)}"
        )
    languages = [f"<|{code}|>" for code in list(LANGUAGES)[:count]]
    names = [*CONTROL_TOKENS[:2], *languages, *CONTROL_TOKENS[2:]]
    return {name: n_ranks + i for i, name in enumerate(names)}


def rank_file(n_vocab: int) -> Path:
    """OpenAI's rank file for a model of `n_vocab` tokens; the bundled model has the English one."""
    return _ASSETS / (_ENGLISH if n_vocab == ENGLISH_ONLY_SIZE else _MULTILINGUAL)
