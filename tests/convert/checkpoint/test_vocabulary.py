"""Vocabularies: tiktoken must encode and decode as the tokenizer of the source does."""

from __future__ import annotations

import base64
import json
from functools import cache
from itertools import pairwise, product
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from baldwhisper_convert.checkpoint.vocabulary import (
    Vocabulary,
    check_merges,
    from_ranks,
    from_tokens,
    token_bytes,
    unicode_to_byte,
)
from baldwhisper_mlx.config import CONTROL_TOKENS
from tests.support import tiny_vocabulary

PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEXT = st.text(st.characters(codec="utf-8")) | st.lists(
    st.sampled_from([*tiny_vocabulary.spelled_tokens(tiny_vocabulary.tiny_vocabulary())]).map(
        lambda token: token_bytes(token, unicode_to_byte()).decode(errors="replace")
    )
).map("".join)


def encoding_of(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding("x", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


@cache
def encoding() -> tiktoken.Encoding:
    return encoding_of(tiny_vocabulary.tiny_vocabulary().ranks)


@cache
def hugging_face() -> Tokenizer:
    vocabulary = tiny_vocabulary.tiny_vocabulary()
    merges = [(a, b) for a, b in tiny_vocabulary.spelled_merges()]
    tokenizer = Tokenizer(BPE(tiny_vocabulary.spelled_tokens(vocabulary), merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


@given(TEXT)
@settings(max_examples=300, deadline=None)
def test_tiktoken_encodes_and_decodes_as_hugging_face(text: str) -> None:
    ids = encoding().encode(text, disallowed_special=())
    assert ids == hugging_face().encode(text).ids
    assert encoding().decode(ids) == hugging_face().decode(ids) == text


@given(st.lists(st.text("abcd ", min_size=1, max_size=30), min_size=1), st.integers(257, 330))
@settings(max_examples=20, deadline=None)
def test_any_trained_byte_level_bpe_passes_the_check_and_encodes_the_same(
    corpus: list[str], size: int
) -> None:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus, BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    raw = json.loads(tokenizer.to_str())["model"]
    table = unicode_to_byte()
    ranks = {token_bytes(token, table): i for token, i in raw["vocab"].items()}
    merges = [(token_bytes(a, table), token_bytes(b, table)) for a, b in raw["merges"]]
    check_merges(ranks, merges)
    trained = encoding_of(ranks)
    for text in corpus:
        assert trained.encode(text) == tokenizer.encode(text).ids


def merge_all(text: bytes, priority: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    """Byte-pair encoding by its definition: the best pair anywhere, leftmost first, until none."""
    parts = [text[i : i + 1] for i in range(len(text))]
    while pairs := [
        (priority[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in priority
    ]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


class Everything(dict[tuple[bytes, bytes], int]):
    """tiktoken's priorities: any pair whose concatenation is a token, by the token's rank."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        self.ranks = ranks

    def __contains__(self, pair: object) -> bool:
        return isinstance(pair, tuple) and b"".join(pair) in self.ranks

    def __getitem__(self, pair: tuple[bytes, bytes]) -> int:
        return self.ranks[b"".join(pair)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=6))
@settings(max_examples=500, deadline=None)
def test_random_merges_that_pass_the_check_encode_the_same(picks: list[tuple[int, int]]) -> None:
    """Merges at random: many are refused, those that are not must agree on every text."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    tokens, merges = [b"a", b"b"], []
    for i, j in picks:
        pair = (tokens[i % len(tokens)], tokens[j % len(tokens)])
        if b"".join(pair) not in ranks:
            ranks[b"".join(pair)] = len(ranks)
            tokens.append(b"".join(pair))
            merges.append(pair)
    try:
        check_merges(ranks, merges)
    except ValueError:
        return
    listed = {pair: i for i, pair in enumerate(merges)}
    for length in range(1, 8):
        for letters in product(b"ab", repeat=length):
            assert merge_all(bytes(letters), listed) == merge_all(bytes(letters), Everything(ranks))


def test_the_check_refuses_merges_that_would_encode_differently() -> None:
    """`ab` first, then `b`+`c` makes `bc`, then `a`+`bc`: tiktoken would also join `ab`+`c`."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"bc": 257, b"abc": 258}
    merges = [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
    listed = {pair: i for i, pair in enumerate(merges)}
    assert merge_all(b"abc", listed) == [b"ab", b"c"]
    assert merge_all(b"abc", Everything(ranks)) == [b"abc"]
    with pytest.raises(ValueError, match="tiktoken would encode text differently"):
        check_merges(ranks, merges)


def parts() -> dict[str, Any]:
    vocabulary = tiny_vocabulary.tiny_vocabulary()
    return {
        "tokens": tiny_vocabulary.spelled_tokens(vocabulary),
        "added": dict(vocabulary.special_tokens),
        "merges": [(a, b) for a, b in tiny_vocabulary.spelled_merges()],
    }


def test_missing_timestamps_follow_no_timestamps() -> None:
    assert from_tokens(**parts()) == tiny_vocabulary.tiny_vocabulary()


def test_present_timestamps_are_checked_and_left_out() -> None:
    given_parts = parts()
    given_parts["added"] |= tiny_vocabulary.timestamp_tokens(tiny_vocabulary.tiny_vocabulary())
    assert from_tokens(**given_parts) == tiny_vocabulary.tiny_vocabulary()


@pytest.mark.parametrize(("old", "new"), [("nocaptions", "nospeech"), ("iw", "he")])
def test_old_names_of_special_tokens(old: str, new: str) -> None:
    given_parts = parts()
    given_parts["added"][f"<|{old}|>"] = given_parts["added"].pop(f"<|{new}|>")
    assert from_tokens(**given_parts) == tiny_vocabulary.tiny_vocabulary()


def test_special_tokens_among_the_tokens() -> None:
    given_parts = parts()
    given_parts["tokens"] |= {CONTROL_TOKENS[0]: given_parts["added"][CONTROL_TOKENS[0]]}
    assert from_tokens(**given_parts) == tiny_vocabulary.tiny_vocabulary()


def swap(merges: list[Any], i: int, j: int) -> None:
    merges[i], merges[j] = merges[j], merges[i]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: p["added"].pop("<|translate|>"), r"no <\|translate\|>"),
        (lambda p: p["added"].pop("<|de|>"), "missing 410"),
        (lambda p: p["added"].update({"<|extra|>": 410}), "neither control tokens nor languages"),
        (lambda p: p["added"].update({"<|de|>": 411}), "missing 410; .* 1 used twice"),
        (lambda p: p["added"].update({"<|0.02|>": 700}), r"timestamp <\|0\.02\|> is not at id"),
        (lambda p: p["added"].update({"<|30.02|>": 2014}), r"timestamp <\|30\.02\|> is not at"),
        (lambda p: p["added"].update({"<|nocaptions|>": 3}), r"<\|nospeech\|> has the ids"),
        (lambda p: p["added"].update({"<|xx|>": 600}), r"<\|xx\|> has the id of a timestamp"),
        (lambda p: p["added"].update({"concord": 2014}), "after the timestamps.*: concord"),
        (lambda p: p["added"].update({"<|9999999.00|>": 7}), "neither control tokens nor"),
        (lambda p: p["added"].update({"<|notimestamps|>": 10**10}), "has the id 10000000000"),
        (lambda p: p["added"].update({"<|notimestamps|>": 200_000}), "token ids are not"),
        (lambda p: p["added"].update({"<|de|>": -1}), "has the id -1; expected 0"),
        (lambda p: p["added"].update({"<|de|>": "410"}), "has the id 410; expected 0"),
        (lambda p: p["tokens"].update({"a" * 5000: 700}), "is 5000 characters long"),
        (lambda p: p["tokens"].update({"日本": 3000}), "'日本' is not byte-level"),
        (lambda p: p["tokens"].pop("a"), "missing 64"),
        (lambda p: p["merges"].pop(), "tiktoken would encode text differently"),
        (lambda p: p["merges"].append(("z", "z")), "b'z' [+] b'z'"),
        (lambda p: swap(p["merges"], 3, 9), "only their order differs"),
    ],
    ids=lambda value: "" if callable(value) else value,
)
def test_vocabularies_that_cannot_be_exported_are_refused(change: Any, match: str) -> None:
    given_parts = parts()
    change(given_parts)
    with pytest.raises(ValueError, match=match):
        from_tokens(**given_parts)


def test_tokens_that_no_merge_makes_are_refused() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"abc": 256}
    with pytest.raises(ValueError, match="tokens that no merge of lower ids makes: b'abc'"):
        check_merges(ranks, None)


def test_the_empty_token_is_allowed_and_written_as_openai_does() -> None:
    ranks = dict(tiny_vocabulary.tiny_vocabulary().ranks)
    ranks[b""] = len(ranks)
    n_vocab = len(ranks) + 8 + 99 + 1501
    vocabulary = from_ranks(ranks, n_vocab)
    assert vocabulary.n_vocab == n_vocab
    assert vocabulary.rank_file().endswith(b"\n= %d\n" % ranks[b""])


def test_rank_file_lines_are_base64_and_rank_in_order() -> None:
    lines = tiny_vocabulary.tiny_vocabulary().rank_file().decode().splitlines()
    decoded = [(base64.b64decode(token), int(rank)) for token, rank in map(str.split, lines)]
    assert decoded == list(tiny_vocabulary.tiny_vocabulary().ranks.items())


@pytest.mark.parametrize("languages", [1, 99, 100])
def test_bare_ranks_get_as_many_languages_as_fit(languages: int) -> None:
    expected = tiny_vocabulary.tiny_vocabulary(languages)
    assert from_ranks(expected.ranks, expected.n_vocab) == expected


@pytest.mark.parametrize("languages", [-1, 0, 101])
def test_bare_ranks_of_another_size_are_refused(languages: int) -> None:
    ranks = tiny_vocabulary.tiny_vocabulary().ranks
    with pytest.raises(ValueError, match=f"would leave {languages} language tokens"):
        from_ranks(ranks, len(ranks) + 8 + languages + 1501)


def test_all_single_bytes_must_be_tokens() -> None:
    vocabulary = tiny_vocabulary.tiny_vocabulary()
    ranks = {token + b"!" if token == b"a" else token: i for token, i in vocabulary.ranks.items()}
    with pytest.raises(ValueError, match="256 single bytes"):
        Vocabulary(ranks, vocabulary.special_tokens, vocabulary.timestamp_begin)


def test_byte_table_is_that_of_the_tokenizers_library() -> None:
    assert set(unicode_to_byte()) == set(ByteLevel.alphabet())
    for character, byte in unicode_to_byte().items():
        text = bytes([byte]).decode("latin-1")
        if byte < 128:
            assert ByteLevel(False, False).pre_tokenize_str(text) == [(character, (0, 1))]


@pytest.mark.parametrize("first", [2014, 2020])
def test_languages_added_after_the_timestamps_are_moved_before_them(first: int) -> None:
    plain, given_parts = tiny_vocabulary.tiny_vocabulary(), parts()
    given_parts["added"] |= {"<|bam|>": first + 1, "<|dyu|>": first, "[PAD]": first + 2}
    vocabulary = from_tokens(**given_parts)
    assert vocabulary.n_vocab == plain.n_vocab + 2
    assert vocabulary.source_ids is not None
    old = {name: i for name, i in given_parts["added"].items() if name != "[PAD]"}
    for name, i in vocabulary.special_tokens.items():
        assert vocabulary.source_ids[i] == old[name], name
    begin = vocabulary.timestamp_begin
    assert vocabulary.source_ids[begin:] == tuple(range(plain.timestamp_begin, plain.n_vocab))
    assert vocabulary.source_ids[: len(plain.ranks)] == tuple(range(len(plain.ranks)))
