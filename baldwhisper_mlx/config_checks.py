"""Checks of the values in `config.json`, with messages that name the key.

config.py says which values there are. Standard library only.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from baldwhisper_mlx.terminal import quoted

_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")


def is_int(value: object) -> bool:
    """Whether it is a whole number, and no boolean, which Python counts as one."""
    return isinstance(value, int) and not isinstance(value, bool)


def require(ok: bool, key: str, value: object, why: str = "") -> None:
    """Raises a ValueError that names a key and its value, unless `ok`."""
    if not ok:
        raise ValueError(f"config: bad value for {key}: {quoted(value)}{why}")


def check_keys(cls: type, raw: Mapping[str, Any], what: str) -> None:
    """Makes sure that a JSON object has the fields of a dataclass and no others.

    Raises:
        ValueError: missing or unknown keys; the message names them.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    missing, unknown = sorted(known - raw.keys()), sorted(raw.keys() - known)
    if missing or unknown:
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"unknown {', '.join(map(quoted, unknown[:5]))}"] if unknown else []
        raise ValueError(f"{what}: {'; '.join(parts)}")


def check_special_tokens(
    tokens: Mapping[str, Any], control: Sequence[str], end: int, *, multilingual: bool
) -> None:
    """Checks the special tokens below the timestamps.

    Args:
        tokens: name to id.
        control: names that must be there; the others are languages.
        end: ids are below it.
        multilingual: whether there must be a language.

    Raises:
        ValueError: a name is missing or is none, an id is out of range, or there is no language.
    """
    missing = [name for name in control if name not in tokens]
    if missing:
        raise ValueError(f"config: special_tokens has no {', '.join(missing)}")
    for name, token in tokens.items():
        require(is_int(token) and 0 <= token < end, f"special_tokens[{quoted(name)}]", token)
        if name not in control and _LANGUAGE.fullmatch(name) is None:
            raise ValueError(
                f"config: bad name in special_tokens: {quoted(name)}; besides the control tokens "
                "there are languages, with two or three letters such as <|en|>"
            )
    if multilingual and len(tokens) == len(control):
        raise ValueError(
            "config: is_multilingual is true, but special_tokens has no language such as <|en|>"
        )


def check_languages(codes: Any, names: Collection[str], multilingual: bool) -> None:
    """Checks the codes of the languages that a model was trained for; None is allowed.

    Args:
        codes: of the languages.
        names: tokens of languages, such as <|en|>.
        multilingual: whether the model is.

    Raises:
        ValueError: no tuple of different codes, or one that has no token.
    """
    if codes is None:
        return
    known = {name[2:-2] for name in names} if multilingual else {"en"}
    ok = isinstance(codes, tuple) and all(isinstance(code, str) for code in codes)
    ok = ok and len(codes) == len(set(codes)) > 0 and set(codes) <= known
    require(ok, "languages", codes)


def check_suppress_tokens(ids: Any, eot: int) -> None:
    """Checks the ids that are never written; None is allowed.

    Args:
        ids: of text.
        eot: id of the end of text, above all of them.

    Raises:
        ValueError: no tuple of different ids of text.
    """
    if ids is None:
        return
    ok = isinstance(ids, tuple) and all(is_int(i) and 0 <= i < eot for i in ids)
    require(
        ok and len(ids) == len(set(ids)), "suppress_tokens", ids, f" (ids of text, 0 to {eot - 1})"
    )


def check_alignment_heads(heads: Sequence[Any], n_layer: int, n_head: int) -> None:
    """Checks (decoder layer, head) pairs.

    Raises:
        ValueError: one is no pair, does not exist in the decoder, or is there twice.
    """
    for pair in heads:
        ok = len(pair) == 2 and all(map(is_int, pair))
        ok = ok and 0 <= pair[0] < n_layer and 0 <= pair[1] < n_head
        require(ok, "alignment_heads", pair, f"; there are {n_layer} layers of {n_head} heads")
    require(
        len(set(heads)) == len(heads), "alignment_heads", list(heads), "; a pair is there twice"
    )


def check_embedding(values: Mapping[str, Any], projections: Sequence[str]) -> None:
    """Checks the keys that describe the token embedding.

    Args:
        values: of the config, by key.
        projections: what `embedding_projections` may be.

    Raises:
        ValueError: a value of another type or range, or keys that contradict each other.
    """
    rank, rows = values["embedding_rank"], values["embedding_dense_rows"]
    mean, shared = values["embedding_mean"], values["embedding_projections"]
    ok = rank is None or (is_int(rank) and 0 < rank <= values["n_text_state"])
    require(ok, "embedding_rank", rank)
    require(is_int(rows) and 0 <= rows <= values["n_vocab"], "embedding_dense_rows", rows)
    require(isinstance(mean, bool), "embedding_mean", mean)
    require(shared in projections, "embedding_projections", shared)
    if rank is None and (rows or mean or shared != "shared"):
        raise ValueError(
            "config: embedding_projections, embedding_mean and embedding_dense_rows "
            "describe a factorized embedding, but embedding_rank is null"
        )
