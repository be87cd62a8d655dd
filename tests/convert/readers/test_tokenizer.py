"""Finding a checkpoint's vocabulary in every tokenizer format."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from baldwhisper_convert.readers import hub
from baldwhisper_convert.readers.tokenizer import find_vocabulary, read_tokenizer
from baldwhisper_mlx.text.tokenizer import read_ranks
from tests.support import tiny_vocabulary

N_VOCAB = tiny_vocabulary.tiny_vocabulary().n_vocab


def token_list(folder: Path, suffix: str) -> Path:
    tokens = tiny_vocabulary.tiny_token_list()
    text = json.dumps(tokens) if suffix == "json" else "\n".join(tokens) + "\n"
    path = folder / f"vocabulary.{suffix}"
    path.write_text(text, encoding="utf-8")
    return path


def rank_file(folder: Path) -> Path:
    path = folder / "tiny.tiktoken"
    path.write_bytes(tiny_vocabulary.tiny_vocabulary().rank_file())
    return path


FORMS = {
    "tokenizer.json": tiny_vocabulary.tiny_tokenizer_json,
    "without timestamps": lambda folder: tiny_vocabulary.tiny_tokenizer_json(
        folder, timestamps=False
    ),
    "vocab.json and merges.txt": tiny_vocabulary.tiny_slow_tokenizer,
    "vocabulary.json": lambda folder: token_list(folder, "json"),
    "vocabulary.txt": lambda folder: token_list(folder, "txt"),
    "rank file": rank_file,
}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_vocabulary(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path)
    assert find_vocabulary(tmp_path, N_VOCAB) == tiny_vocabulary.tiny_vocabulary()
    assert find_vocabulary(None, N_VOCAB, str(path)) == tiny_vocabulary.tiny_vocabulary()


def test_vocab_json_itself_may_be_named(tmp_path: Path) -> None:
    tiny_vocabulary.tiny_slow_tokenizer(tmp_path)
    path = tmp_path / "vocab.json"
    assert find_vocabulary(None, N_VOCAB, str(path)) == tiny_vocabulary.tiny_vocabulary()


def test_added_tokens_may_be_in_the_tokenizer_config(tmp_path: Path) -> None:
    tiny_vocabulary.tiny_slow_tokenizer(tmp_path)
    added = json.loads((tmp_path / "added_tokens.json").read_text())
    (tmp_path / "added_tokens.json").unlink()
    decoder = {str(i): {"content": name, "special": True} for name, i in added.items()}
    config = json.dumps({"added_tokens_decoder": decoder})
    (tmp_path / "tokenizer_config.json").write_text(config)
    assert find_vocabulary(tmp_path, N_VOCAB) == tiny_vocabulary.tiny_vocabulary()


def test_merges_may_be_strings(tmp_path: Path) -> None:
    path = tiny_vocabulary.tiny_tokenizer_json(tmp_path)
    raw = json.loads(path.read_text())
    raw["model"]["merges"] = [" ".join(merge) for merge in raw["model"]["merges"]]
    path.write_text(json.dumps(raw))
    assert find_vocabulary(tmp_path, N_VOCAB) == tiny_vocabulary.tiny_vocabulary()


def test_a_named_tokenizer_replaces_that_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    other = tmp_path / "other"
    other.mkdir()
    tiny_vocabulary.tiny_tokenizer_json(other)
    assert find_vocabulary(tmp_path, N_VOCAB, str(other)) == tiny_vocabulary.tiny_vocabulary()


@pytest.mark.parametrize("name", ["whisper-base", "gpt2 of a model with 2,014 rows"])
def test_another_size_is_an_error_that_gives_both(name: str, tmp_path: Path) -> None:
    tiny_vocabulary.tiny_tokenizer_json(tmp_path)
    with pytest.raises(ValueError, match=r"has 2014 tokens, .* has 2015 rows"):
        find_vocabulary(tmp_path, N_VOCAB + 1)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("tokenizer.json", "{", "not valid JSON"),
        ("tokenizer.json", "{}", "malformed"),
        ("tokenizer.json", '{"model": {"type": "Unigram"}}', "not GPT-2's byte-level BPE"),
        ("tokenizer.json", '{"model": []}', "malformed"),
        ("tokenizer.json", "1", "malformed"),
        ("vocab.json", "{}", r"merges\.txt is missing in the same"),
        ("vocabulary.txt", "a\nb\n", r"no <\|endoftext\|>"),
        ("vocabulary.json", "[1, 2]", r"no <\|endoftext\|>"),
        ("x.tiktoken", "YQ== 0\nYg== x\n", "line 2 is not `base64 rank`"),
        ("x.tiktoken", "?? 0\n", "line 1 is not `base64 rank`"),
        ("x.tiktoken", "YQ==\n", "line 1 is not `base64 rank`"),
        ("x.tiktoken", "YQ== 0\n", "n_vocab 2014 is not that of an OpenAI"),
    ],
)
def test_damaged_files_are_named(name: str, content: str, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}: .*{match}") as error:
        find_vocabulary(tmp_path, N_VOCAB)
    assert str(error.value).count(name) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}},
        {"model": {"type": "BPE", "end_of_word_suffix": "</w>"}},
    ],
    ids=str,
)
def test_tokenizers_that_tiktoken_cannot_reproduce_are_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    path = tiny_vocabulary.tiny_tokenizer_json(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="not GPT-2's byte-level BPE"):
        find_vocabulary(tmp_path, N_VOCAB)


def test_several_rank_files_are_ambiguous(tmp_path: Path) -> None:
    rank_file(tmp_path).rename(tmp_path / "a.tiktoken")
    rank_file(tmp_path)
    with pytest.raises(ValueError, match="several rank files"):
        read_tokenizer(tmp_path, N_VOCAB)


def test_a_named_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no tokenizer in a supported format"):
        find_vocabulary(None, N_VOCAB, str(tmp_path))


def test_rank_files_are_read_back(tmp_path: Path) -> None:
    assert read_ranks(rank_file(tmp_path)) == tiny_vocabulary.tiny_vocabulary().ranks


class TestWithoutAnyTokenizer:
    """OpenAI and mlx-community checkpoints: the vocabulary is one of OpenAI's two."""

    @pytest.mark.parametrize(
        ("n_vocab", "mergeable", "languages"),
        [(51864, 50256, 99), (51865, 50257, 99), (51866, 50257, 100)],
    )
    def test_ranks_are_openais(self, n_vocab: int, mergeable: int, languages: int) -> None:
        vocabulary = find_vocabulary(None, n_vocab)
        assert len(vocabulary.ranks) == mergeable
        assert len(vocabulary.special_tokens) == 8 + languages
        spec = importlib.util.find_spec("whisper")
        assert spec is not None
        assert spec.origin is not None
        name = "gpt2" if n_vocab == 51864 else "multilingual"
        original = Path(spec.origin).parent / "assets" / f"{name}.tiktoken"
        assert sorted(vocabulary.rank_file().splitlines()) == sorted(
            original.read_bytes().splitlines()
        )

    @pytest.mark.parametrize("languages", [99, 100])
    def test_special_tokens_are_openais(self, languages: int) -> None:
        from whisper.tokenizer import get_tokenizer

        ours = find_vocabulary(None, 51766 + languages)
        theirs = get_tokenizer(True, num_languages=languages)
        # OpenAI calls <|nospeech|> so in its code too; timestamps are special tokens there.
        special = {k: v for k, v in theirs.special_tokens.items() if v < theirs.timestamp_begin}
        assert ours.special_tokens == special
        assert ours.timestamp_begin == theirs.timestamp_begin

    @pytest.mark.parametrize("n_vocab", [51864, 51865, 51866])
    def test_the_hub_is_not_asked(self, n_vocab: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A trainer's checkpoint has no tokenizer; its export needs no package and no network."""
        monkeypatch.setattr(hub, "fetch", lambda *_, **__: pytest.fail("asks the Hub"))
        assert find_vocabulary(None, n_vocab).ranks
