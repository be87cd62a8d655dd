"""Reads a checkpoint of any format, from a path or the Hugging Face Hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import EMBEDDING, Dimensions, State
from baldwhisper_convert.checkpoint.vocabulary import Vocabulary
from baldwhisper_convert.readers import hub
from baldwhisper_convert.readers.formats import Weights, read_weights
from baldwhisper_convert.readers.model_folder import is_model_folder, read_model_folder
from baldwhisper_convert.readers.sidecars import SIDECARS
from baldwhisper_convert.readers.tokenizer import TOKENIZER_PATTERNS, find_vocabulary
from baldwhisper_convert.readers.weight_files import find_weights


def read_checkpoint(
    source: str | Path, *, revision: str | None = None, tokenizer: str | None = None
) -> Checkpoint:
    """Reads a Whisper checkpoint.

    Args:
        source: a Hugging Face, CTranslate2 or mlx-community folder, an OpenAI `.pt` file, a
            folder that export made, or a Hub id, which is downloaded unless the local cache has
            it.
        revision: branch, tag or commit of a Hub id.
        tokenizer: path or Hub id of another tokenizer than the checkpoint's.

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
        patterns=(*SIDECARS, *TOKENIZER_PATTERNS),
        is_complete=_has_weights,
        more_patterns=lambda files: list(find_weights(files, str(source)).patterns),
    )
    weights = read_model_folder(path) if is_model_folder(path) else read_weights(path)
    folder = path if path.is_dir() else None
    vocabulary = weights.vocabulary if tokenizer is None else None
    vocabulary = vocabulary or find_vocabulary(folder, weights.dims.n_vocab, tokenizer)
    dims, state = _selected(weights, vocabulary)
    checkpoint = Checkpoint(
        dims=dims,
        state=state,
        vocabulary=dataclasses.replace(vocabulary, source_ids=None),
        alignment_heads=weights.alignment_heads,
        is_multilingual=weights.is_multilingual,
        languages=weights.languages,
        # A folder of the Hub's cache has the commit as its name.
        source=str(source) if Path(source).expanduser().exists() else f"{source}@{path.name}",
        format=weights.format,
        licence=weights.licence,
        base_model=weights.base_model,
        audio_context=weights.audio_context,
        audio_context_margin=weights.audio_context_margin,
    )
    return _with_suppressed(checkpoint, weights.suppress_tokens, vocabulary)


def _with_suppressed(
    checkpoint: Checkpoint, stated: tuple[int, ...] | None, vocabulary: Vocabulary
) -> Checkpoint:
    """The checkpoint with its own list of suppressed tokens, unless that is OpenAI's.

    Args:
        checkpoint: without the list.
        stated: ids in the source's files; special tokens among them are suppressed anyway.
        vocabulary: with the ids that the tokens have in the source.
    """
    if stated is None:
        return checkpoint
    sources = vocabulary.source_ids
    ids = set(stated) if sources is None else {i for i, id in enumerate(sources) if id in stated}
    tokenizer = checkpoint.tokenizer()
    text = tuple(sorted(token for token in ids if 0 <= token < tokenizer.eot))
    same = text == tokenizer.non_speech_tokens
    return checkpoint if same else dataclasses.replace(checkpoint, suppress_tokens=text)


def _selected(weights: Weights, vocabulary: Vocabulary) -> tuple[Dimensions, State]:
    """Dimensions and state with the rows of the token embedding that the vocabulary wants.

    Raises:
        ValueError: the embedding has fewer rows.
    """
    ids = vocabulary.source_ids
    if ids is None:
        return weights.dims, weights.state
    name = f"{EMBEDDING}.weight"
    embedding = weights.state.get(name)
    if embedding is None or embedding.shape[:1] != (weights.dims.n_vocab,):
        raise ValueError(f"{name} has not the {weights.dims.n_vocab} rows of the vocabulary")
    state = weights.state | {name: embedding[torch.tensor(ids)]}
    return dataclasses.replace(weights.dims, n_vocab=len(ids)), state


def _has_weights(folder: Path) -> bool:
    try:
        names = [str(file.relative_to(folder)) for file in folder.iterdir()]
        return find_weights(names, str(folder)).missing(folder) == []
    except FileNotFoundError:
        return False
