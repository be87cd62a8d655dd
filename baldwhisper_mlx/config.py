"""The contract between converter and runtime: `config.json` of a model.

Standard library only, so that the converter imports it without MLX, and a bad file is reported
before anything heavy is imported. Reading is strict: a missing key, an unknown key and a value of
the wrong type or range are all errors, because a key that is ignored silently gives a model that
differs from the exported one.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from baldwhisper_mlx.bounds import MOST_CONFIG_BYTES, check_dimensions
from baldwhisper_mlx.config_checks import (
    check_alignment_heads,
    check_embedding,
    check_keys,
    check_languages,
    check_special_tokens,
    check_suppress_tokens,
    is_int,
    require,
)
from baldwhisper_mlx.files import read_json
from baldwhisper_mlx.quantization_config import Quantization
from baldwhisper_mlx.terminal import quoted

FORMAT_VERSION = 1
MODEL_TYPE = "baldwhisper"
"""`model_type` in the `config.json` of our model folders."""
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
VOCABULARY_FILE = "vocabulary.tiktoken"
PADDING_FILE = "padding.safetensors"

AudioContext = Literal["full", "trimmed", "dynamic"]
EmbeddingProjections = Literal["shared", "separate"]
Dtype = Literal["float16", "bfloat16", "float32"]

SAMPLE_RATE = 16_000
"""Samples per second of the audio that every Whisper model takes."""
HOP_LENGTH = 160
"""Samples between two mel frames: 10 ms."""
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
"""Mel frames per second."""
FRAMES_PER_POSITION = 2
"""Mel frames per encoder position, and per timestamp step."""
TIME_PRECISION = FRAMES_PER_POSITION * HOP_LENGTH / SAMPLE_RATE
"""Seconds between two timestamp tokens: 0.02."""

WINDOW_POSITIONS = 1500
"""Encoder positions in 30 s, which every Whisper has; timestamps and windows are made for them."""

AUDIO_BUCKET = 50
"""A shortened audio context is rounded up to a multiple of so many encoder positions (1 s), so
that there are few distinct shapes."""

N_TIMESTAMPS = 1501
"""Timestamp tokens <|0.00|> to <|30.00|> in steps of 0.02 s; they end every vocabulary."""

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
"""Special tokens every Whisper vocabulary has; the others in `special_tokens` are languages."""


_OPTIONAL = ("languages", "suppress_tokens")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that the runtime needs to know about a model besides its weights.

    The ten `n_*` fields are OpenAI's ModelDimensions under their own names.

    Raises:
        ValueError: a field has the wrong type, is out of range, or contradicts another.
    """

    n_mels: int
    """Mel bins of the input: 80, or 128 from large-v3 on."""
    n_audio_ctx: int
    """Encoder positions in 30 s; one is 20 ms, or two mel frames."""
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    """Rows of the token embedding V, timestamps included."""
    n_text_ctx: int
    """Decoder positions; also the capacity of the self-attention cache."""
    n_text_state: int
    """Width d of the decoder."""
    n_text_head: int
    n_text_layer: int

    special_tokens: dict[str, int] = dataclasses.field(hash=False)
    """Name to id of every special token below the timestamps: control tokens and languages."""
    is_multilingual: bool
    """False for English-only models, whose prompt has no language and task tokens."""
    languages: tuple[str, ...] | None = None
    """Codes of the languages that the model was trained for, "en" among English-only models; None
    for all that have a token. Others are refused."""
    timestamp_begin: int
    """Id of <|0.00|>; the 1501 timestamps are consecutive and end the vocabulary."""
    alignment_heads: tuple[tuple[int, int], ...]
    """(decoder layer, head) pairs whose cross-attention follows the audio, for word times."""
    dtype: Dtype = "float16"
    """Type the weights are stored in (the unquantized ones, if `quantization` is set)."""

    embedding_rank: int | None = None
    """Rank r of the factorized token embedding; None for a dense V x d matrix."""
    embedding_projections: EmbeddingProjections = "shared"
    """One r x d projection for input and output, or one each."""
    embedding_mean: bool = False
    """Whether a mean row (d,) was subtracted before factorizing and is added back."""
    embedding_dense_rows: int = 0
    """K frequent tokens kept as dense rows that replace the low-rank value at their ids."""

    audio_context: AudioContext = "full"
    """Positions that are computed for a clip shorter than 30 s, as in training: `docs/format.md`.

    "full": encoder and cross-attention over 30 s. "trimmed": encoder over 30 s, cross-attention
    over the clip's own positions and a margin. "dynamic": both over the clip's own positions.
    """
    audio_context_margin: int = 25
    """Encoder positions (20 ms each) kept after the end of the audio unless "full"."""

    quantization: Quantization | None = None

    suppress_tokens: tuple[int, ...] | None = None
    """Ids of text that are never written, as the checkpoint's own generation config says; None for
    OpenAI's list of symbols. Control tokens are never written anyway."""

    def __post_init__(self) -> None:
        self._check_dimensions()
        check_embedding(vars(self), get_args(EmbeddingProjections))
        self._check_vocabulary()
        require(isinstance(self.is_multilingual, bool), "is_multilingual", self.is_multilingual)
        check_languages(
            self.languages, self.special_tokens.keys() - set(CONTROL_TOKENS), self.is_multilingual
        )
        check_suppress_tokens(self.suppress_tokens, self.special_tokens["<|endoftext|>"])
        require(self.dtype in get_args(Dtype), "dtype", self.dtype)
        require(self.audio_context in get_args(AudioContext), "audio_context", self.audio_context)
        require(
            is_int(self.audio_context_margin)
            and 0 <= self.audio_context_margin <= self.n_audio_ctx,
            "audio_context_margin",
            self.audio_context_margin,
        )
        check_alignment_heads(self.alignment_heads, self.n_text_layer, self.n_text_head)

    def _check_dimensions(self) -> None:
        try:
            check_dimensions(vars(self))
        except ValueError as error:
            raise ValueError(f"config: {error}") from None
        for side in ("audio", "text"):
            state, head = getattr(self, f"n_{side}_state"), getattr(self, f"n_{side}_head")
            require(state % head == 0, f"n_{side}_head", head, f" (does not divide {state})")
        if self.n_audio_ctx != WINDOW_POSITIONS:
            raise ValueError(
                f"config: bad value for n_audio_ctx: {self.n_audio_ctx}; windows have 30 s, which "
                f"are {WINDOW_POSITIONS} positions, and models for shorter ones are not supported"
            )
        same = self.n_audio_state == self.n_text_state  # cross-attention is d x d
        require(same, "n_audio_state", self.n_audio_state, " (n_text_state differs)")

    def _check_vocabulary(self) -> None:
        require(is_int(self.timestamp_begin), "timestamp_begin", self.timestamp_begin)
        check_special_tokens(
            self.special_tokens,
            CONTROL_TOKENS,
            self.timestamp_begin,
            multilingual=self.is_multilingual,
        )
        require(
            self.timestamp_begin + N_TIMESTAMPS == self.n_vocab,
            "timestamp_begin",
            self.timestamp_begin,
            f" (n_vocab is {self.n_vocab}, less {N_TIMESTAMPS} timestamps)",
        )

    def audio_positions(self, n_frames: int) -> int:
        """Encoder positions a clip of `n_frames` mel frames (10 ms) takes.

        All of them if `audio_context` is "full"; else the clip's own (two frames each) and the
        margin, rounded up to a multiple of `AUDIO_BUCKET`.

        Example:
            >>> trimmed.audio_positions(300)  # 3 s: 150 positions, 25 of margin
            200
        """
        if self.audio_context == "full":
            return self.n_audio_ctx
        return bucketed_positions(n_frames, self.audio_context_margin, self.n_audio_ctx)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON values, `format_version` first.

        Example:
            >>> config == ModelConfig.from_dict(config.to_dict())
            True
        """
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for key in _OPTIONAL:
            if plain[key] is None:  # a release that does not know the key can then read the file
                del plain[key]
        return {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION} | plain

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelConfig:
        """Builds a config from parsed JSON.

        Args:
            raw: as `to_dict` returns it, with every field of the class but `languages` and
                `suppress_tokens`, which are optional, and no other key.

        Raises:
            ValueError: another format or version, missing or unknown keys, bad values.
        """
        raw = dict(raw)
        if raw.pop("model_type", None) != MODEL_TYPE:
            raise ValueError(
                "config: not a baldwhisper model; `baldwhisper-convert export` makes one "
                "from any Whisper checkpoint"
            )
        version = raw.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"config: format_version {quoted(version)} cannot be read by this release, which "
                f"reads {FORMAT_VERSION}; export the model again or upgrade baldwhisper-mlx"
            )
        for key in _OPTIONAL:
            if isinstance(values := raw.setdefault(key, None), list):
                raw[key] = tuple(values)
        check_keys(cls, raw, "config")
        require(isinstance(raw["special_tokens"], dict), "special_tokens", raw["special_tokens"])
        heads = raw["alignment_heads"]
        ok = isinstance(heads, list) and all(isinstance(pair, list) for pair in heads)
        ok = ok and all(is_int(i) for pair in heads for i in pair)
        require(ok, "alignment_heads", heads)
        raw["alignment_heads"] = tuple(tuple(pair) for pair in heads)
        if raw["quantization"] is not None:
            raw["quantization"] = Quantization.from_dict(raw["quantization"])
        return cls(**raw)

    @classmethod
    def from_file(cls, path: str | Path) -> ModelConfig:
        """Reads `config.json`.

        Raises:
            ValueError: not JSON, or not a config of this format; the message names the file.
            FileNotFoundError: there is no such file.
        """
        raw = read_json(Path(path), MOST_CONFIG_BYTES)
        if not isinstance(raw, dict):
            raise ValueError(f"{path}: expected a JSON object, found {type(raw).__name__}")
        try:
            return cls.from_dict(raw)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def bucketed_positions(n_frames: int, margin: int, n_audio_ctx: int) -> int:
    """Encoder positions of a shortened audio context.

    Args:
        n_frames: mel frames (10 ms) of audio.
        margin: positions (20 ms) kept after its end.
        n_audio_ctx: positions of a whole window, the most there can be.

    Example:
        >>> bucketed_positions(300, 25, 1500)
        200
    """
    wanted = -(-n_frames // FRAMES_PER_POSITION) + margin
    return min(n_audio_ctx, -(-max(wanted, 1) // AUDIO_BUCKET) * AUDIO_BUCKET)


def default_alignment_heads(n_text_layer: int, n_text_head: int) -> tuple[tuple[int, int], ...]:
    """All (layer, head) of the upper half of the decoder: openai-whisper's choice for word times.

    Example:
        >>> default_alignment_heads(3, 2)
        ((1, 0), (1, 1), (2, 0), (2, 1))
    """
    layers = range(n_text_layer // 2, n_text_layer)
    return tuple((layer, head) for layer in layers for head in range(n_text_head))
