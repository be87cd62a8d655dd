"""The three JSON files that tell transformers what a Whisper is: model, generation, audio.

Written from a checkpoint and not by transformers, whose releases differ in what they write.
"""

from __future__ import annotations

from typing import Any

from baldwhisper_convert.canonical import Dimensions
from baldwhisper_convert.checkpoint import Checkpoint
from baldwhisper_convert.destination import EXPORTED_BY
from baldwhisper_convert.keymaps import HF_DIMENSIONS
from baldwhisper_convert.vocabulary import END_OF_TEXT
from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.config import (
    CONTROL_TOKENS,
    FRAMES_PER_POSITION,
    HOP_LENGTH,
    SAMPLE_RATE,
    Dtype,
)


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
        "decoder_start_token_id": special[CONTROL_TOKENS[1]],
        # transformers wants it in generation_config.json, whisper.cpp's converter here.
        "max_length": dims.n_text_ctx,
        "torch_dtype": dtype,
        EXPORTED_BY: __version__,
    }


def generation_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """`generation_config.json`: what transformers' `generate` must know about the tokens.

    An English-only model has no languages and no tasks, as in OpenAI's own folders.
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
        languages = {name: i for name, i in special.items() if name not in CONTROL_TOKENS}
        config["lang_to_id"] = languages
        config["task_to_id"] = {
            task: special[f"<|{task}|>"] for task in ("transcribe", "translate")
        }
    return config


def preprocessor_config(dims: Dimensions) -> dict[str, Any]:
    """`preprocessor_config.json`: the log-mel that transformers and faster-whisper compute."""
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
