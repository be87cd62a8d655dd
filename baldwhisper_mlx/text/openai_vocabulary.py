"""OpenAI's vocabularies: which special tokens they have, and where their rank files are.

Checkpoints in OpenAI's and mlx-whisper's formats have no tokenizer of their own; their
vocabulary follows from the size of the token embedding. Standard library only.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from baldwhisper_mlx.config import CONTROL_TOKENS, N_TIMESTAMPS
from baldwhisper_mlx.text.languages import LANGUAGES

ENGLISH_ONLY_SIZE = 51864
"""Tokens of OpenAI's English-only models; the multilingual ones have more
(`whisper.model.Whisper.is_multilingual`)."""

RANK_FILES = {True: "multilingual.tiktoken", False: "gpt2.tiktoken"}
"""Name of OpenAI's rank file by whether it is the multilingual one."""

BUNDLED_RANKS = Path(__file__).parent.parent / "assets" / "base-en" / "vocabulary.tiktoken"
"""The bundled model's vocabulary: OpenAI's multilingual one."""

PACKAGES = ("whisper", "mlx_whisper")
"""Packages that include both rank files."""


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


def installed_rank_file(n_vocab: int) -> Path | None:
    """OpenAI's rank file for a model of `n_vocab` tokens from an installed package, if any."""
    name = RANK_FILES[n_vocab != ENGLISH_ONLY_SIZE]
    for package in PACKAGES:
        # find_spec, because importing either would load torch and numba, or MLX, for one file.
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            path = Path(root) / "assets" / name
            if path.is_file():
                return path
    return None
