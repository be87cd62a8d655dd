"""A dynamic audio context: what is prepared for it, and the models trained on that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data import labels
from baldwhisper_convert.data.features import AudioFeatures
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import Choice, Prepared
from baldwhisper_convert.data.speech import Speech
from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_convert.data.windows import Planned, Sound, Window, WindowSettings
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.training_stages import run_finetune
from baldwhisper_convert.training.settings import TrainingSettings
from baldwhisper_mlx.config import ModelConfig
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_speech import tiny_prompts, tiny_teacher, tiny_utterance

SINGLE = WindowSettings(single=1.0, silence=0.0, pause=0.0, full=0.0)
BEGIN = tiny_prompts().tokenizer.timestamp_begin


def clips(folder: Path) -> list[Utterance]:
    """Four clips that take one, two, two and four buckets."""
    lengths = (0.35, 0.9, 1.2, 3.1)
    return [tiny_utterance(folder / f"{i}.wav", s, "a fox", i) for i, s in enumerate(lengths)]


def prepared(teacher: Checkpoint, folder: Path, name: str, **options: Any) -> Prepared:
    how = PrepareSettings(**({"windows": SINGLE, "audio_context": "dynamic"} | options))
    return prepare(teacher, clips(folder), how, folder / name, batch_size=3)


@settings(max_examples=200, deadline=None)
@given(n_samples=st.integers(1, 480_000), margin=st.integers(0, 200))
def test_positions_are_the_runtimes(n_samples: int, margin: int) -> None:
    config = ModelConfig(
        **vars(tiny_dims()),
        special_tokens=dict(tiny_checkpoint().vocabulary.special_tokens),
        is_multilingual=True,
        timestamp_begin=tiny_checkpoint().vocabulary.timestamp_begin,
        alignment_heads=(),
        audio_context="dynamic",
        audio_context_margin=margin,
    )
    features = AudioFeatures.__new__(AudioFeatures)
    features.dynamic, features.margin = True, margin * 0.02
    window = Window((), full=True)
    sound = Sound(Planned(0, 0, 0, window), [], np.zeros(n_samples, np.float32))
    assert features.positions(sound) == config.audio_positions(n_samples // 160)


def test_log_mel_is_cut_to_buckets(tmp_path: Path) -> None:
    data = prepared(tiny_teacher(), tmp_path, "mel", features="mel")
    assert [window.positions for window in data.windows] == [50, 100, 100, 200]
    assert data.features(3).shape == (80, 400)
    assert data.audio_context == ("dynamic", 25)
    assert bool((data.features(0)[:, 35:] == 0).all())


def test_states_are_of_an_encoder_that_receives_no_more(tmp_path: Path) -> None:
    teacher = tiny_teacher(audio_context="dynamic")
    mel = prepared(teacher, tmp_path, "mel", features="mel")
    states = prepared(teacher, tmp_path, "states")
    model = Whisper.from_checkpoint(teacher)
    for number in range(4):
        with torch.no_grad():
            expected = model.encoder(mel.features(number)[None])[0]
        assert states.features(number).shape == expected.shape
        torch.testing.assert_close(states.features(number), expected, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("features", ["mel", "states"])
def test_a_dynamic_teacher_decodes_each_clip_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
    """Padding to the longest clip of a batch is masked."""
    decoded: list[tuple[int, int]] = []

    def decode(
        model: Whisper, states: torch.Tensor, mask: torch.Tensor | None, *_: Any, **__: Any
    ) -> list[list[int]]:
        real = [states.shape[1]] * len(states) if mask is None else mask.sum((1, 2, 3)).tolist()
        decoded.extend((int(count), states.shape[1]) for count in real)
        return [[BEGIN, *model_tokens(row[: int(n)]), BEGIN + 5]
                for row, n in zip(states, real, strict=True)]  # fmt: skip

    def model_tokens(row: torch.Tensor) -> list[int]:
        return [int(1e3 * float(row.abs().mean())) % 200]

    monkeypatch.setattr(labels, "decode_greedy", decode)
    teacher = tiny_teacher(audio_context="dynamic")
    options: dict[str, Any] = {"labels": "teacher", "features": features, "max_wer": 99.0}
    together = prepared(teacher, tmp_path, "together", **options)
    assert decoded == [(50, 100), (100, 100), (100, 100), (200, 200)]
    how = PrepareSettings(**options, windows=SINGLE, audio_context="dynamic")
    alone = [
        prepare(teacher, [clip], how, tmp_path / f"alone-{i}")
        for i, clip in enumerate(clips(tmp_path))
    ]
    assert [w.tokens for w in together.windows] == [data.windows[0].tokens for data in alone]


@pytest.mark.parametrize(
    ("trained", "options"),
    [
        ("full", {"features": "states"}),
        ("dynamic", {"features": "states", "audio_context": "full"}),
    ],
)
def test_a_teacher_is_not_run_in_a_context_it_was_not_trained_for(
    tmp_path: Path, trained: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"trained for a {trained} audio context"):
        prepared(tiny_teacher(audio_context=trained), tmp_path, "data", **options)


@pytest.mark.parametrize("trained", ["full", "trimmed"])
def test_a_teacher_of_30_s_labels_log_mel_of_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Any
) -> None:
    """Its labels are those of its own context, as for data of that context; its states are not."""
    seen: list[torch.Tensor] = []

    def decode(model: Any, states: torch.Tensor, mask: Any, *_: Any, **__: Any) -> list[list[int]]:
        assert mask is None
        seen.append(states)
        return [[BEGIN, 5, BEGIN + 5]] * len(states)

    monkeypatch.setattr(labels, "decode_greedy", decode)
    teacher = tiny_teacher(audio_context=trained)
    options: dict[str, Any] = {"labels": "teacher", "features": "mel", "max_wer": 99.0}
    clip = prepared(teacher, tmp_path, "clip", **options)
    prepared(teacher, tmp_path, "full", **options, audio_context="full")
    assert clip.audio_context[0] == "dynamic"
    assert max(window.positions for window in clip.windows) < 1500
    assert seen[0].shape[1] == 1500
    half = len(seen) // 2
    for states, of_full in zip(seen[:half], seen[half:], strict=True):
        torch.testing.assert_close(states, of_full)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"windows\.full"):
        PrepareSettings(audio_context="dynamic")
    with pytest.raises(ValueError, match="full or dynamic"):
        PrepareSettings(audio_context="trimmed")  # type: ignore[arg-type]


def test_data_of_two_contexts_is_not_mixed(tmp_path: Path) -> None:
    dynamic = prepared(tiny_teacher(), tmp_path, "dynamic", features="mel")
    full = prepared(tiny_teacher(), tmp_path, "full", features="mel", audio_context="full")
    with pytest.raises(ValueError, match="audio contexts"):
        Choice([(dynamic, 1.0), (full, 1.0)])
    assert Choice([(dynamic, 0.5)]).audio_context == ("dynamic", 25)


@pytest.mark.parametrize(
    ("before", "context", "after"),
    [("full", "dynamic", "dynamic"), ("dynamic", "full", "full"), ("trimmed", "full", "trimmed")],
)
def test_training_decides_what_a_model_is_for(
    tmp_path: Path, before: Any, context: Any, after: str
) -> None:
    wide = replace(SINGLE, margin=1.0)
    teacher = tiny_teacher(audio_context=before)
    data = prepared(teacher, tmp_path, "data", features="mel", audio_context=context, windows=wide)
    training = TrainingSettings(epochs=1, batch_size=4, learning_rate=1e-3, freeze=())
    speech = Speech(windows=Choice([(data, 1.0)]), fingerprints={})
    model = Model.of(teacher)
    trained, _ = run_finetune(model, training, speech, None, tmp_path / "run")
    assert trained.checkpoint.audio_context == after
    assert trained.checkpoint.audio_context_margin == (50 if after == "dynamic" else 25)
