"""A vocabulary as the tokenizer files of a Hugging Face Whisper folder, old and new.

The ids are the merge ranks, so the merge list follows from them. The files are written here
and not by transformers, because which of them it writes, and how, depends on its release,
while programs that read them (faster-whisper, whisper.cpp's converter) expect certain ones.
"""

from __future__ import annotations

import json
from typing import Any

from baldwhisper_convert.vocabulary import END_OF_TEXT, Vocabulary, own_merges, unicode_to_byte
from baldwhisper_mlx.config import CONTROL_TOKENS, N_TIMESTAMPS

START_OF_TRANSCRIPT, NO_TIMESTAMPS = CONTROL_TOKENS[1], CONTROL_TOKENS[-1]

_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
_NAME_OF_BYTE = {byte: name for name, byte in unicode_to_byte().items()}


def tokenizer_files(vocabulary: Vocabulary, n_text_ctx: int) -> dict[str, str]:
    """File name to contents: everything a `WhisperTokenizer` of any release reads.

    Args:
        vocabulary: the model's.
        n_text_ctx: decoder positions, the tokenizer's `model_max_length`.
    """
    tokens = {_spell(token): i for token, i in _by_id(vocabulary.ranks)}
    merges = [f"{_spell(a)} {_spell(b)}" for a, b in own_merges(vocabulary.ranks)]
    special = dict(_by_id(vocabulary.special_tokens))
    begin = vocabulary.timestamp_begin
    timestamps = {f"<|{i * 0.02:.2f}|>": begin + i for i in range(N_TIMESTAMPS)}
    # Timestamps are not special: transformers finds the first of them after the last special one.
    added = [(i, name, True) for name, i in special.items()]
    added += [(i, name, False) for name, i in timestamps.items()]
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    special_map: dict[str, Any] = names | {"additional_special_tokens": list(special)}
    config = special_map | {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": name, "special": is_special} | _FLAGS
            for i, name, is_special in added
        },
        # True would rewrite " ." to "."; text is what the tokens say.
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": n_text_ctx,
        "processor_class": "WhisperProcessor",
        "return_attention_mask": False,
        "tokenizer_class": "WhisperTokenizer",
    }
    return {
        "tokenizer.json": _dump(_tokenizer_json(vocabulary, tokens, merges, added)),
        "tokenizer_config.json": _dump(config),
        "special_tokens_map.json": _dump(special_map),
        # Older releases take the unknown token, which is the end of text, from here.
        "vocab.json": _dump(tokens | {END_OF_TEXT: special.pop(END_OF_TEXT)}),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "added_tokens.json": _dump(special | timestamps),
    }


def _tokenizer_json(
    vocabulary: Vocabulary,
    tokens: dict[str, int],
    merges: list[str],
    added: list[tuple[int, str, bool]],
) -> dict[str, Any]:
    """The `tokenizers` library's file; text is put between the tokens of a plain transcript."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    frame = {
        name: {"id": name, "ids": [vocabulary.special_tokens[name]], "tokens": [name]}
        for name in (START_OF_TRANSCRIPT, NO_TIMESTAMPS, END_OF_TEXT)
    }
    opening, plain, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in frame)
    text = [{"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, "special": special} | _FLAGS for i, name, special in added
        ],
        "normalizer": None,
        "pre_tokenizer": level | {"use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [opening, plain, text[0], end],
            "pair": [opening, plain, *text, end],
            "special_tokens": frame,
        },
        "decoder": level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": tokens,
            "merges": merges,
        },
    }


def _spell(token: bytes) -> str:
    return "".join(_NAME_OF_BYTE[byte] for byte in token)


def _by_id(ids: dict[Any, int]) -> list[tuple[Any, int]]:
    return sorted(ids.items(), key=lambda item: item[1])


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
