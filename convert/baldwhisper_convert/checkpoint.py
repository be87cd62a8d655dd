"""Reads a Whisper checkpoint of any format into one canonical state.

`read_checkpoint` finds the files, tells the format by them, reads dimensions and weights by
that format's rules and checks the result in both directions. Later stages see only a
`Checkpoint` and never learn where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from baldwhisper_convert import hub
from baldwhisper_convert.canonical import (
    Dimensions,
    EmbeddingForm,
    Heads,
    State,
    canonical_shapes,
    check_state,
)
from baldwhisper_convert.formats import SIDECARS, read_weights
from baldwhisper_convert.model_folder import is_model_folder, read_model_folder
from baldwhisper_convert.tokenizer_files import TOKENIZER_PATTERNS, find_vocabulary
from baldwhisper_convert.vocabulary import Vocabulary
from baldwhisper_convert.weight_files import find_weights
from baldwhisper_mlx.config import AudioContext, ModelConfig, default_alignment_heads
from baldwhisper_mlx.tokenizer import Tokenizer

SMALLEST_MULTILINGUAL_VOCABULARY = 51865
"""English-only models have 51864 tokens; the rule is `Whisper.is_multilingual`'s of OpenAI."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One Whisper model, whole: what every stage of the compressor reads and returns.

    Raises:
        ValueError: the state is not exactly that of a Whisper of `dims`, the vocabulary has
            another size, or an alignment head does not exist.
    """

    dims: Dimensions
    state: State
    """OpenAI-named floating-point tensors on the CPU, in torch layout (out, in[, kernel])."""
    vocabulary: Vocabulary
    alignment_heads: Heads | None = None
    """(decoder layer, head) pairs; None if the source does not say."""
    is_multilingual: bool | None = None
    """Whether prompts carry language and task tokens; None if the source does not say."""
    source: str
    """Path it was read from, or `hub-id@commit`."""
    format: str
    """Name of the source's format."""
    licence: str | None = None
    """Licence that the source's own model card states, if it has one."""
    audio_context: AudioContext = "full"
    """What the model was trained for; see `ModelConfig.audio_context`."""
    audio_context_margin: int = ModelConfig.audio_context_margin
    """Encoder positions after the end of the audio, unless "full"."""

    def __post_init__(self) -> None:
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
    def heads(self) -> Heads:
        """Heads that give words their times: the source's, or by default the upper layers'."""
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
        return self.dims.n_vocab >= SMALLEST_MULTILINGUAL_VOCABULARY

    def tokenizer(self) -> Tokenizer:
        """The runtime's tokenizer of this vocabulary.

        Raises:
            ValueError: dimensions that the runtime does not support.
        """
        config = ModelConfig(
            **vars(self.dims),
            special_tokens=dict(self.vocabulary.special_tokens),
            is_multilingual=self.multilingual,
            timestamp_begin=self.vocabulary.timestamp_begin,
            alignment_heads=(),
        )
        return Tokenizer(self.vocabulary.ranks, config)


def read_checkpoint(
    source: str | Path, *, revision: str | None = None, tokenizer: str | None = None
) -> Checkpoint:
    """Reads a Whisper checkpoint.

    Args:
        source: a Hugging Face, CTranslate2 or mlx-community folder, an OpenAI `.pt` file, a
            folder that export made, or a hub id. The local cache of the hub is asked first.
        revision: branch, tag or commit, for a hub id.
        tokenizer: path or hub id of the tokenizer, instead of the checkpoint's own if any.

    Raises:
        FileNotFoundError: nothing there; or no weights, or no tokenizer.
        ValueError: not a Whisper, damaged or incomplete; the message names file and tensor.

    Example:
        >>> checkpoint = read_checkpoint("openai/whisper-base")  # doctest: +SKIP
        >>> checkpoint.dims.n_text_layer  # doctest: +SKIP
        6
    """
    path = hub.fetch(
        str(source),
        revision=revision,
        allow=(*SIDECARS, *TOKENIZER_PATTERNS),
        complete=_has_weights,
        choose=lambda files: list(find_weights(files, str(source)).patterns),
    )
    weights = read_model_folder(path) if is_model_folder(path) else read_weights(path)
    folder = path if path.is_dir() else None
    vocabulary = weights.vocabulary if tokenizer is None else None
    return Checkpoint(
        dims=weights.dims,
        state=weights.state,
        vocabulary=vocabulary or find_vocabulary(folder, weights.dims.n_vocab, tokenizer),
        alignment_heads=weights.alignment_heads,
        is_multilingual=weights.is_multilingual,
        # A folder of the hub's cache is named after its commit.
        source=str(source) if Path(source).expanduser().exists() else f"{source}@{path.name}",
        format=weights.format,
        licence=weights.licence,
        audio_context=weights.audio_context,
        audio_context_margin=weights.audio_context_margin,
    )


def _has_weights(folder: Path) -> bool:
    try:
        names = [str(file.relative_to(folder)) for file in folder.iterdir()]
        found = find_weights(names, str(folder))
        return found.missing(folder) == []
    except FileNotFoundError:
        return False
