"""Configuration and tokenizer files of a Hugging Face Whisper folder.

They are written from the checkpoint and not by transformers and tokenizers, whose releases write
different files: what is written here is read by old and new releases, by CTranslate2's converter
and by that of whisper.cpp.
"""

from __future__ import annotations

import json
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.key_maps import HF_DIMENSIONS
from baldwhisper_convert.checkpoint.state import Dimensions
from baldwhisper_convert.checkpoint.vocabulary import (
    END_OF_TEXT,
    Vocabulary,
    merges_of,
    unicode_to_byte,
)
from baldwhisper_convert.export.destination import EXPORTED_BY
from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.config import (
    CONTROL_TOKENS,
    FRAMES_PER_POSITION,
    HOP_LENGTH,
    N_TIMESTAMPS,
    SAMPLE_RATE,
    TIME_PRECISION,
    Dtype,
)

_START_OF_TRANSCRIPT, _NO_TIMESTAMPS = CONTROL_TOKENS[1], CONTROL_TOKENS[-1]
_ADDED_TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
_CHARACTER_OF_BYTE = {byte: character for character, byte in unicode_to_byte().items()}


def hf_config(checkpoint: Checkpoint, dtype: Dtype, *, untied: bool = False) -> dict[str, Any]:
    """`config.json`: the architecture, as transformers' WhisperConfig.

    Raises:
        ValueError: encoder and decoder of different widths, for which it has no key.
    """
    dims, special = checkpoint.dims, checkpoint.vocabulary.special_tokens
    if dims.n_audio_state != dims.n_text_state:
        raise ValueError(
            f"{checkpoint.source}: encoder and decoder have different widths "
            f"({dims.n_audio_state}, {dims.n_text_state}); a Hugging Face Whisper has one"
        )
    end = special[END_OF_TEXT]
    return {key: getattr(dims, field) for field, key in HF_DIMENSIONS.items()} | {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "activation_function": "gelu",
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_text_state,
        "num_hidden_layers": dims.n_audio_layer,
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": not untied,
        "use_cache": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": special[_START_OF_TRANSCRIPT],
        # transformers wants it in generation_config.json, whisper.cpp's converter here.
        "max_length": dims.n_text_ctx,
        "torch_dtype": dtype,
        EXPORTED_BY: __version__,
    }


def generation_config(
    checkpoint: Checkpoint, languages: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """`generation_config.json`: the special tokens and heads that transformers' `generate` needs.

    An English-only model gets no languages and tasks, as in OpenAI's folders.

    Args:
        checkpoint: the model.
        languages: codes of the languages that it was trained for; None for all that have a token.
    """
    tokenizer, special = checkpoint.tokenizer(), checkpoint.vocabulary.special_tokens
    config: dict[str, Any] = {
        "alignment_heads": [list(pair) for pair in checkpoint.heads],
        "begin_suppress_tokens": list(tokenizer.blank_tokens),
        "bos_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
        "eos_token_id": tokenizer.eot,
        "forced_decoder_ids": None,
        "is_multilingual": checkpoint.multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": checkpoint.dims.n_text_ctx,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "pad_token_id": tokenizer.eot,
        "prev_sot_token_id": tokenizer.sot_prev,
        "return_timestamps": False,
        "suppress_tokens": list(tokenizer.suppressed_tokens),
    }
    if checkpoint.multilingual:
        known = {name: i for name, i in special.items() if name not in CONTROL_TOKENS}
        if languages is not None:
            known = {name: known[name] for name in (f"<|{code}|>" for code in languages)}
        config["lang_to_id"] = known
        config["task_to_id"] = {
            task: special[f"<|{task}|>"] for task in ("transcribe", "translate")
        }
        # Without a task and a language, transformers detects the language and then leaves the
        # task out of the prompt, which no Whisper was trained on: the text repeats itself.
        config["task"] = "transcribe"
        if len(known) == 1:
            # The token, because transformers refuses codes that are not in Whisper's own list.
            (config["language"],) = known
    return config


def preprocessor_config(dims: Dimensions) -> dict[str, Any]:
    """`preprocessor_config.json`: how transformers and faster-whisper compute the log-mel input."""
    frames = FRAMES_PER_POSITION * dims.n_audio_ctx
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": dims.n_mels,
        "sampling_rate": SAMPLE_RATE,
        "hop_length": HOP_LENGTH,
        "n_fft": 400,
        "chunk_length": frames * HOP_LENGTH // SAMPLE_RATE,
        "n_samples": frames * HOP_LENGTH,
        "nb_max_frames": frames,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def tokenizer_files(vocabulary: Vocabulary, n_text_ctx: int) -> dict[str, str]:
    """The files that transformers' `WhisperTokenizer` and `WhisperTokenizerFast` read.

    Args:
        vocabulary: the model's.
        n_text_ctx: decoder positions, the tokenizer's `model_max_length`.

    Returns:
        Contents by file name.
    """
    tokens = {_spell(token): i for token, i in _by_id(vocabulary.ranks)}
    merges = [f"{_spell(a)} {_spell(b)}" for a, b in merges_of(vocabulary.ranks)]
    special = dict(_by_id(vocabulary.special_tokens))
    begin = vocabulary.timestamp_begin
    others = {name: i for name, i in special.items() if name != END_OF_TEXT}
    timestamps = {f"<|{i * TIME_PRECISION:.2f}|>": begin + i for i in range(N_TIMESTAMPS)}
    # Timestamps are not special: transformers finds the first of them after the last special one.
    added = [(i, name, True) for name, i in special.items()]
    added += [(i, name, False) for name, i in timestamps.items()]
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    special_map: dict[str, Any] = names | {"additional_special_tokens": list(special)}
    config = special_map | {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": name, "special": is_special} | _ADDED_TOKEN
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
        "tokenizer.json": to_json(_tokenizer_json(vocabulary, tokens, merges, added)),
        "tokenizer_config.json": to_json(config),
        "special_tokens_map.json": to_json(special_map),
        # Older releases look up the unknown token, which is <|endoftext|>, in vocab.json.
        "vocab.json": to_json(tokens | {END_OF_TEXT: special[END_OF_TEXT]}),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "added_tokens.json": to_json(others | timestamps),
    }


def _tokenizer_json(
    vocabulary: Vocabulary,
    tokens: dict[str, int],
    merges: list[str],
    added: list[tuple[int, str, bool]],
) -> dict[str, Any]:
    """The file of the `tokenizers` library.

    Its post-processor puts encoded text between the special tokens of a transcript without
    timestamps.
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    frame = {
        name: {"id": name, "ids": [vocabulary.special_tokens[name]], "tokens": [name]}
        for name in (_START_OF_TRANSCRIPT, _NO_TIMESTAMPS, END_OF_TEXT)
    }
    opening, plain, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in frame)
    text = [{"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, "special": special} | _ADDED_TOKEN
            for i, name, special in added
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [opening, plain, text[0], end],
            "pair": [opening, plain, *text, end],
            "special_tokens": frame,
        },
        "decoder": byte_level | {"use_regex": True},
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
    """A token in GPT-2's printable characters."""
    return "".join(_CHARACTER_OF_BYTE[byte] for byte in token)


def _by_id(ids: dict[Any, int]) -> list[tuple[Any, int]]:
    return sorted(ids.items(), key=lambda item: item[1])


def to_json(value: Any) -> str:
    """A value as the text of a JSON file."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
