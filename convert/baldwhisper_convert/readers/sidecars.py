"""What the small files beside the weights say: alignment heads, languages, the licence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.state import Dimensions, Heads
from baldwhisper_mlx.bounds import MOST_CONFIG_BYTES, check_file
from baldwhisper_mlx.files import read_json

SIDECARS = ("config.json", "generation_config.json", "README.md")
"""Files that are fetched with the weights: how to read them, and the licence."""


class SourceWarning(UserWarning):
    """A fault of a source that does not prevent its export."""


def generation_heads(folder: Path, dims: Dimensions) -> Heads | None:
    """Alignment heads by `generation_config.json`; None if it does not say."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    raw = read_json(path)
    return check_heads(raw.get("alignment_heads") if isinstance(raw, dict) else None, dims, path)


def stated_multilingual(folder: Path) -> bool | None:
    """Whether `generation_config.json` calls the model multilingual; None if it does not say."""
    path = folder / "generation_config.json"
    raw = read_json(path) if path.is_file() else None
    value = raw.get("is_multilingual") if isinstance(raw, dict) else None
    return value if isinstance(value, bool) else None


def check_heads(raw: Any, dims: Dimensions, path: Path) -> Heads | None:
    """Alignment heads, or None (with a warning) if they are those of another model.

    Pruned models are often saved with the generation config of the unpruned model. Word
    timestamps then use the default heads; nothing else is affected.

    Args:
        raw: pairs of decoder layer and head, as stored; or nothing.
        dims: of the model.
        path: the file, for messages.

    Raises:
        ValueError: no list of pairs of numbers.
    """
    if not raw:
        return None
    try:
        heads = tuple((int(layer), int(head)) for layer, head in raw)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: alignment_heads is not a list of pairs") from None
    if all(0 <= la < dims.n_text_layer and 0 <= he < dims.n_text_head for la, he in heads):
        return heads
    warnings.warn(
        f"{path}: alignment_heads names heads that this decoder of {dims.n_text_layer} layers "
        "does not have; the default heads are used instead",
        SourceWarning,
        stacklevel=2,
    )
    return None


def stated_suppressed(folder: Path) -> tuple[int, ...] | None:
    """`suppress_tokens` of `generation_config.json`, or else of `config.json`, where older releases
    of transformers wrote it; None if neither says. A null in the first is the empty list, as in
    transformers; in the second it is the default of releases that read the first."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        raw = read_json(path) if path.is_file() else None
        if not isinstance(raw, dict) or "suppress_tokens" not in raw:
            continue
        if raw["suppress_tokens"] is not None:
            return check_suppressed(raw["suppress_tokens"], path)
        if name == "generation_config.json":
            return ()
    return None


def check_suppressed(raw: Any, path: Path, key: str = "suppress_tokens") -> tuple[int, ...] | None:
    """Ids that are not to be written, sorted; None for none stated, or for -1, OpenAI's list.

    Args:
        raw: a list of ids, as stored; or None.
        path: the file, for messages.
        key: of the list in the file.

    Raises:
        ValueError: no list of numbers.
    """
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(type(token) is int for token in raw):
        raise ValueError(f"{path}: {key} is not a list of token ids")
    return None if -1 in raw else tuple(sorted(set(raw)))


def stated_in_card(folder: Path, key: str) -> str | None:
    """A text in the metadata of the source's model card, such as its `license` or `base_model`;
    None without a readable card, or if it has none."""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    card = folder / "README.md"
    try:
        check_file(card, MOST_CONFIG_BYTES)
        stated = (metadata_load(card) or {}).get(key)
    except (
        ValueError,
        OSError,
        YAMLError,
        RecursionError,
    ):  # the card is for people; a bad one must not stop an export
        return None
    return stated if isinstance(stated, str) else None
