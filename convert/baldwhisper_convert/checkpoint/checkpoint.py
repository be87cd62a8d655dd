"""A Whisper model in the one form that all stages read and return.

The readers produce it from any format and it is checked when it is made, so later stages do not
depend on where a model came from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from baldwhisper_convert.checkpoint.state import (
    Dimensions,
    EmbeddingForm,
    Heads,
    State,
    canonical_shapes,
    check_state,
)
from baldwhisper_convert.checkpoint.vocabulary import Vocabulary
from baldwhisper_mlx.config import (
    N_TIMESTAMPS,
    AudioContext,
    Dtype,
    ModelConfig,
    default_alignment_heads,
)
from baldwhisper_mlx.text.openai_vocabulary import ENGLISH_ONLY_SIZE
from baldwhisper_mlx.text.tokenizer import Tokenizer

WINDOW_POSITIONS = N_TIMESTAMPS - 1
"""Encoder positions of 20 ms in the 30 s that the runtime cuts audio to."""


SOURCES = " + "
"""Between the sources of an average."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One complete Whisper model: weights, vocabulary and what is known about its source.

    Raises:
        ValueError: windows of another length than 30 s, the state is not exactly that of a
            Whisper of `dims`, the vocabulary has another size, or an alignment head does not
            exist.
    """

    dims: Dimensions
    state: State
    """OpenAI-named floating-point tensors on the CPU, in torch layout (out, in[, kernel])."""
    vocabulary: Vocabulary
    alignment_heads: Heads | None = None
    """(decoder layer, head) pairs; None if the source does not say."""
    is_multilingual: bool | None = None
    """Whether prompts carry language and task tokens; None if the source does not say."""
    languages: tuple[str, ...] | None = None
    """Codes of the languages that the model was trained for; None for all that have a token."""
    suppress_tokens: tuple[int, ...] | None = None
    """Ids of text that are never written, if they are not OpenAI's; see `ModelConfig`."""
    source: str
    """Path it was read from, or `hub-id@commit`; several of them with `SOURCES` between."""
    format: str
    """Name of the source's format."""
    licence: str | None = None
    """Licence that the source's own model card states, if it has one."""
    base_model: str | None = None
    """Hub id of the model that the source was made from, if its card states one."""
    audio_context: AudioContext = "full"
    """What the model was trained for; see `ModelConfig.audio_context`."""
    audio_context_margin: int = ModelConfig.audio_context_margin
    """Encoder positions after the end of the audio, unless "full"."""

    def __post_init__(self) -> None:
        if self.dims.n_audio_ctx != WINDOW_POSITIONS:
            raise ValueError(
                f"{self.source}: a window has {self.dims.n_audio_ctx} encoder positions "
                f"(n_audio_ctx, max_source_positions), {self.dims.n_audio_ctx / 50:g} s; only "
                f"models of 30 s ({WINDOW_POSITIONS} positions) can be exported"
            )
        shapes = canonical_shapes(self.dims, self.embedding)
        check_state(self.state, shapes, self.source)
        if self.vocabulary.n_vocab != self.dims.n_vocab:
            raise ValueError(
                f"{self.source}: the vocabulary has {self.vocabulary.n_vocab} tokens, the "
                f"embedding {self.dims.n_vocab} rows"
            )
        for layer, head in self.alignment_heads or ():
            if not (0 <= layer < self.dims.n_text_layer and 0 <= head < self.dims.n_text_head):
                raise ValueError(
                    f"{self.source}: alignment head ({layer}, {head}) does not exist in a decoder "
                    f"of {self.dims.n_text_layer} layers with {self.dims.n_text_head} heads"
                )

    @property
    def hub_id(self) -> str:
        """Its id on the Hub; empty for a path, or an average of several models."""
        name = self.source.rpartition("@")[0]
        on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not _there(self.source)
        return name if on_hub else ""

    @property
    def public_source(self) -> str:
        """The source without folders, which may be private: Hub ids, or last parts of paths."""
        sources = self.source.split(SOURCES)
        return SOURCES.join(
            Path(one).expanduser().resolve().name if _there(one) else one for one in sources
        )

    @property
    def heads(self) -> Heads:
        """Attention heads for word timestamps: the source's, or OpenAI's default heads."""
        default = default_alignment_heads(self.dims.n_text_layer, self.dims.n_text_head)
        return self.alignment_heads or default

    @property
    def embedding(self) -> EmbeddingForm:
        """Form of the token embedding."""
        return EmbeddingForm.of(self.state)

    @property
    def multilingual(self) -> bool:
        """`is_multilingual`, or OpenAI's rule by the vocabulary size if the source is silent."""
        if self.is_multilingual is not None:
            return self.is_multilingual
        return self.dims.n_vocab > ENGLISH_ONLY_SIZE

    def model_config(
        self,
        *,
        dtype: Dtype = "float16",
        audio_context: AudioContext | None = None,
        languages: tuple[str, ...] | None = None,
    ) -> ModelConfig:
        """The runtime's description of this model.

        Args:
            dtype: type that its weights are stored in.
            audio_context: instead of this checkpoint's.
            languages: instead of this checkpoint's.

        Raises:
            ValueError: dimensions that the runtime does not support, or languages without a
                token; names the source.
        """
        form = self.embedding
        try:
            return ModelConfig(
                **vars(self.dims),
                special_tokens=dict(self.vocabulary.special_tokens),
                is_multilingual=self.multilingual,
                languages=languages or self.languages,
                suppress_tokens=self.suppress_tokens,
                timestamp_begin=self.vocabulary.timestamp_begin,
                alignment_heads=self.heads,
                dtype=dtype,
                embedding_rank=form.rank,
                embedding_projections=form.projections,
                embedding_mean=form.mean,
                embedding_dense_rows=form.dense_rows,
                audio_context=audio_context or self.audio_context,
                audio_context_margin=self.audio_context_margin,
            )
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from None

    def tokenizer(self) -> Tokenizer:
        """The runtime's tokenizer of this vocabulary, which knows all languages with a token.

        A model can be trained in a language that it does not know yet.

        Raises:
            ValueError: dimensions that the runtime does not support.
        """
        config = dataclasses.replace(self.model_config(), languages=None)
        return Tokenizer(self.vocabulary.ranks, config)


def fingerprint(checkpoint: Checkpoint) -> str:
    """sha256 over names, shapes and float32 values of a checkpoint's tensors, 16 digits.

    It does not depend on where or in which type the checkpoint was stored, as long as the
    type holds the values.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.state.items()):
        plain = tensor.detach().to(torch.float32).contiguous()
        digest.update(f"{name}{list(plain.shape)}".encode())
        digest.update(plain.numpy().tobytes())
    return digest.hexdigest()[:16]


def _there(source: str) -> bool:
    return Path(source).expanduser().exists()
