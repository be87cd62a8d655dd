"""Log-probabilities of the tokens of a text, in the shape of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.text.tokenizer import Tokenizer


def logprobs_of(segments: Sequence[Segment], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The text tokens of segments, whose bytes together are their text.

    Args:
        segments: in their order.
        tokenizer: of the model.

    Returns:
        For each token its text, its bytes as numbers, and its natural log-probability among the
        tokens that the rules of decoding allowed.
    """
    found = []
    for segment in segments:
        assert segment.logprobs is not None
        for token, logprob in zip(segment.tokens, segment.logprobs, strict=True):
            if token < tokenizer.eot:
                data = tokenizer.bytes_of(token)
                found.append({"token": _text(data), "logprob": logprob, "bytes": list(data)})
    return found


def _text(data: bytes) -> str:
    """The text of a token; OpenAI's form for a part of a character, such as `bytes:\\xe2\\x80`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
