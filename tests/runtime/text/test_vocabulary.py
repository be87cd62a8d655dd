"""A vocabulary is complete, or it is refused with an error that names the file."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks
from tests.runtime.conftest import tiny_config

RANKS = {bytes([i]): i for i in range(256)}


def file_of(ranks: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % i for token, i in ranks.items())


def without(*ids: int) -> dict[bytes, int]:
    return {token: i for token, i in RANKS.items() if i not in ids}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file has no tokens"),
        (b"\n\n", "the file has no tokens"),
        (file_of(RANKS)[: len(file_of(without(255)))], "id 255 is missing; the file is cut off"),
        (b"".join(file_of(RANKS).splitlines(True)[:100]), "ids 100 to 255 are missing"),
        (file_of(without(7, 8)), "ids 7 to 8 are missing"),
        (file_of(without(9) | {b"\x09": -9}), "the id -9 is negative"),
        (file_of(without(9) | {b"\x09": 10}), "the id 10 is used 2 times"),
        (file_of(without(9) | {b"\x09": 256}), "id 256 is not below that of <|endoftext|>, 256"),
        (file_of(without(9) | {b"\x09": 10**30}), "is not below that of <|endoftext|>"),
        (file_of(without(65) | {b"ab": 65}), "1 of the 256 bytes have no token, the first is b'A'"),
        (file_of(RANKS) + b"QQ== 256\n", "line 257 repeats the token b'A'"),
        (file_of(RANKS)[:-2], "the id 25 is used 2 times"),
        (file_of(RANKS)[:-5], "line 256 is not `base64 rank`"),
        (b"QQ== " + b"9" * 5000 + b"\n", "line 1 is not"),
        (b"QQ== 1.0\n", "line 1 is not"),
        (b"\xff\xfe\x00\x01" * 30, "line 1 is not"),
    ],
)  # fmt: skip
def test_a_damaged_vocabulary_is_refused_when_the_model_is_loaded(
    model_folder: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "m"))
    path = folder / "vocabulary.tiktoken"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="vocabulary") as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_vocabulary_that_is_no_file(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "m"))
    path = folder / "vocabulary.tiktoken"
    makers: list[Callable[[], object]] = [
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to("/dev/zero"),
    ]
    for make in makers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make()
        with pytest.raises(ValueError, match=r"vocabulary\.tiktoken: not a regular file"):
            load_model(folder)
        with pytest.raises(ValueError, match=r"vocabulary\.tiktoken: not a regular file"):
            read_ranks(path)
    path.unlink()
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(ValueError, match=r"vocabulary\.tiktoken: .* bytes; at most"):
        load_model(folder)


edits = st.lists(st.tuples(st.integers(0, 255), st.integers(-3, 300) | st.integers()), max_size=3)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=edits, kept=st.integers(0, 256), flips=st.lists(st.integers(0, 2999), max_size=3))
def test_any_vocabulary_is_refused_or_decodes_every_id(
    tmp_path: Path, edits: list[tuple[int, int]], kept: int, flips: list[int]
) -> None:
    ranks = RANKS | {bytes([byte]): token for byte, token in edits}
    data = bytearray(file_of(dict(list(ranks.items())[:kept])))
    for place in flips:
        if place < len(data):
            data[place] ^= 1 << place % 8
    path = tmp_path / "v.tiktoken"
    path.write_bytes(data)
    try:
        tokenizer = Tokenizer(read_ranks(path), tiny_config(), str(path))
    except ValueError as error:
        if not str(error).startswith(f"{path}: "):
            raise
        return
    for token in range(tokenizer.timestamp_begin):
        tokenizer.decode([token], special=True)
    assert tokenizer.decode(tokenizer.encode("a b!")) == "a b!"


def test_a_panic_is_an_error_of_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken's Rust code panics with a BaseException at what it did not expect."""
    panic = type("PanicException", (BaseException,), {})
    tokenizer = Tokenizer(RANKS, tiny_config())

    def fail(*_: object, **__: object) -> None:
        raise panic("called `Result::unwrap()` on an `Err` value")

    monkeypatch.setattr(tiktoken.Encoding, "encode", fail)
    with pytest.raises(ValueError, match=r"cannot be split into tokens: called `Result"):
        tokenizer.encode("text")
    monkeypatch.setattr(tiktoken.Encoding, "__init__", fail)
    with pytest.raises(ValueError, match=r"v\.tiktoken: called `Result"):
        Tokenizer(RANKS, tiny_config(), "v.tiktoken")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiktoken.Encoding, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("text")
