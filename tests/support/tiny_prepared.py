"""Tiny prepared data and models to train on it, for the tests of the training side.

Written with the package's own writer, so training reads what `prepare` would leave: windows of
unequal length, with text and timestamps, some with the text before, some silent.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import Dimensions
from baldwhisper_convert.compression.layers import apply_plan, keep_plan
from baldwhisper_convert.data.prepared import (
    MEL,
    SILENCE,
    SPEECH,
    STATES,
    Prepared,
    PreparedWindow,
)
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from tests.support.tiny import factorized_state, tiny_checkpoint, tiny_dims, tiny_state
from tests.support.tiny_vocabulary import tiny_vocabulary

N_MELS = 16
GROUPS = ((0, 1), (2,))
"""Teacher layers that the layers of `tiny_student` stand for."""


def tiny_prepared(
    folder: Path,
    n: int = 12,
    *,
    mel: bool = False,
    seed: int = 0,
    silence: int = 5,
    text: bool = True,
    width: int = 0,
    language: str = "en",
) -> Prepared:
    """Writes `n` windows of random features and text.

    Args:
        folder: where.
        n: windows; every third one has the text before it.
        mel: log-mel features instead of encoder states.
        seed: of everything random.
        silence: every so many windows one is silent; 0 for none.
        text: whether the windows have text, or were prepared with labels = "none".
        width: of the features, if it is not that of `teacher_dims`.
        language: of the speech.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    width = width or (N_MELS if mel else teacher_dims().n_audio_state)
    with PreparedWriter(
        folder, key=f"tiny-{seed}", features=MEL if mel else STATES, width=width
    ) as writer:
        for number in range(n):
            kind = SILENCE if silence and number % silence == silence - 1 else SPEECH
            window = tiny_window(number, kind, rng)
            if not text:
                window = replace(window, tokens=(), prompt=(), text="")
            shape = (width, 2 * window.positions) if mel else (window.positions, width)
            writer.add(window, torch.randn(shape, generator=generator))
        labels = "text" if text else "none"
        writer.finish(settings={"language": language, "labels": labels, "windows": {"margin": 0.5}})
    return Prepared(folder)


def tiny_window(number: int, kind: str, rng: random.Random) -> PreparedWindow:
    """One window of random text, 4 to 20 tokens between two timestamps."""
    vocabulary = tiny_vocabulary()
    positions = rng.randrange(6, 30)
    merged = [token for token in vocabulary.ranks.values() if token >= 256]
    body = [rng.choice(merged) for _ in range(rng.randrange(4, 20))]
    begin = vocabulary.timestamp_begin
    spoken = kind == SPEECH
    return PreparedWindow(
        kind=kind,
        positions=positions,
        tokens=(begin, *body, begin + positions) if spoken else (),
        prompt=tuple(rng.choices(merged, k=5)) if number % 3 == 2 else (),
        text=f"window number {number}" if spoken else "",
        duration=positions * 0.02,
        source=f"{number}.wav",
        number=number,
    )


def teacher_dims() -> Dimensions:
    """One encoder layer, three decoder layers of width 32, 64 text positions."""
    return tiny_dims(
        n_mels=N_MELS,
        n_audio_state=32,
        n_audio_layer=1,
        n_text_ctx=64,
        n_text_state=32,
        n_text_layer=3,
    )


@cache
def teacher_checkpoint() -> Checkpoint:
    """A random teacher whose token embeddings differ, so that there is something to learn."""
    dims = teacher_dims()
    state = tiny_state(dims)
    state["decoder.token_embedding.weight"] *= 5
    return tiny_checkpoint(dims, state=state, alignment_heads=None)


def tiny_teacher() -> Whisper:
    """The module of `teacher_checkpoint`."""
    return Whisper.from_checkpoint(teacher_checkpoint())


def tiny_student(**form: Any) -> Whisper:
    """The module of `student_checkpoint`."""
    return Whisper.from_checkpoint(student_checkpoint(**form))


@cache
def student_checkpoint(**form: Any) -> Checkpoint:
    """Two of the teacher's three decoder layers; `form` as `factorized_state` takes it."""
    student = apply_plan(teacher_checkpoint(), keep_plan(teacher_dims().n_text_layer, (1, 2)))
    if not form:
        return student
    state = {n: tensor for n, tensor in student.state.items() if "token_embedding" not in n}
    other = factorized_state(student.dims, **form)
    state |= {name: other[name] for name in other if "token_embedding" in name}
    return replace(student, state=state)


@cache
def tiny_prompts() -> Prompts:
    """Sequences of the tiny vocabulary."""
    return Prompts.of(teacher_checkpoint())
