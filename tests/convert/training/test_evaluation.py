"""Development results: losses as means over positions, and word errors of the speech."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baldwhisper_convert.data.batches import collate
from baldwhisper_convert.data.prepared import SILENCE, Choice, Prepared
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training import evaluation
from baldwhisper_convert.training.evaluation import FIXED, Evaluator
from baldwhisper_convert.training.objectives import Distillation, LossSettings
from tests.support.tiny_prepared import (
    GROUPS,
    tiny_prepared,
    tiny_prompts,
    tiny_teacher,
)

Decoding = Callable[[str], str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Eleven windows of unequal length, two of them silent."""
    return tiny_prepared(tmp_path_factory.mktemp("states") / "data", 11)


@pytest.fixture
def transcribes(monkeypatch: pytest.MonkeyPatch, data: Prepared) -> Callable[[Decoding], list[int]]:
    """Replaces decoding by a function of the window's text; returns the windows decoded."""

    def install(decoding: Decoding) -> list[int]:
        decoded: list[int] = []

        def window_of(states: Tensor) -> int:
            (index,) = (
                i
                for i, window in enumerate(data.windows)
                if torch.equal(states[: window.positions], data.features(i))
            )
            return index

        def decode(
            _: Whisper, states: Tensor, mask: Tensor | None, prompts: Prompts, *, timestamps: bool
        ) -> list[list[int]]:
            assert not timestamps
            indices = [window_of(row) for row in states]
            decoded.extend(indices)
            lengths = [data.windows[i].positions for i in indices]
            if mask is not None:
                assert mask.sum(-1).flatten().tolist() == lengths
            texts = [" " + decoding(data.windows[i].text) for i in indices]
            return [prompts.tokenizer.encode(text) for text in texts]

        monkeypatch.setattr(evaluation, "decode_greedy", decode)
        return decoded

    return install


@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_a_perfect_transcript_has_no_errors(
    data: Prepared, student: Whisper, transcribes: Callable[[Decoding], list[int]], batch_size: int
) -> None:
    decoded = transcribes(lambda text: text.upper() + "!")
    results = Evaluator(data, tiny_prompts(), batch_size=batch_size)(student)
    assert results == {"wer": 0, "score": 0}
    spoken = [i for i, window in enumerate(data.windows) if window.kind != SILENCE]
    assert sorted(decoded) == spoken
    assert len(spoken) == 9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1500), max_size=60), st.integers(1, 4))
def test_short_windows_go_more_at_once(positions: list[int], batch_size: int) -> None:
    windows = SimpleNamespace(
        windows=[SimpleNamespace(positions=n) for n in positions], languages=["en"] * len(positions)
    )
    parts = Evaluator(windows, tiny_prompts(), batch_size=batch_size).parts()  # type: ignore[arg-type]
    assert sorted(i for part in parts for i in part) == list(range(len(positions)))
    for part in parts:
        longest = max(positions[i] for i in part)
        assert 0 < len(part) <= 4 * batch_size
        assert len(part) * longest <= batch_size * 1500
    if positions and max(positions) <= 375 and len(positions) <= 4 * batch_size:
        assert len(parts) == 1


def test_errors_are_counted_over_all_words(
    data: Prepared, student: Whisper, transcribes: Callable[[Decoding], list[int]]
) -> None:
    # "window number N": one word of three is wrong, and window 3 is transcribed as nothing.
    transcribes(lambda text: "" if text.endswith(" 3") else text.replace("window", "widow"))
    results = Evaluator(data, tiny_prompts(), batch_size=4)(student)
    assert results["wer"] == results["score"] == pytest.approx((8 + 3) / 27)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_losses_are_means_over_all_positions(
    data: Prepared, student: Whisper, transcribes: Callable[[Decoding], list[int]], batch_size: int
) -> None:
    transcribes(str)
    settings = LossSettings(embedding=0.1, projection=0.1, hidden=1.0)
    objective = Distillation(tiny_teacher(), GROUPS, settings)
    with torch.no_grad():
        whole = objective(student, collate(data, range(11), tiny_prompts(), FIXED))
    sums = whole.losses | whole.metrics
    expected = {name: float(value) / whole.positions for name, value in sums.items()}
    found = Evaluator(data, tiny_prompts(), objective, batch_size=batch_size)(student)
    assert found == pytest.approx(expected | {"wer": 0, "score": 0}, rel=1e-4)


def test_an_evaluation_repeats_exactly_and_keeps_no_gradient(
    data: Prepared, student: Whisper, transcribes: Callable[[Decoding], list[int]]
) -> None:
    transcribes(str)
    objective = Distillation(tiny_teacher(), GROUPS, LossSettings())
    evaluator = Evaluator(data, tiny_prompts(), objective, batch_size=4)
    first = evaluator(student)
    torch.rand(3)
    assert evaluator(student) == first
    assert all(parameter.grad is None for parameter in student.parameters())


def test_a_random_model_is_wrong(tmp_path: Path, student: Whisper) -> None:
    few = tiny_prepared(tmp_path / "data", 2)
    results = Evaluator(few, tiny_prompts())(student)
    assert results["wer"] >= 1
    mel: Any = tiny_prepared(tmp_path / "mel", 2, mel=True)
    assert Evaluator(mel, tiny_prompts())(student)["wer"] >= 1


def test_silence_alone_has_no_word_error_rate(tmp_path: Path, student: Whisper) -> None:
    silent = tiny_prepared(tmp_path / "data", 2, silence=1)
    assert {window.kind for window in silent.windows} == {SILENCE}
    with pytest.raises(ValueError, match="no words"):
        Evaluator(silent, tiny_prompts())(student)


def test_each_language_has_its_own_rate(
    tmp_path: Path, student: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded with the prompt of its own language, in batches of one language."""
    english = tiny_prepared(tmp_path / "en", 5, silence=0)
    french = tiny_prepared(tmp_path / "fr", 3, silence=0, seed=1, language="fr")
    both = Choice([(english, 1.0), (french, 1.0)])
    assert both.languages == ["en"] * 5 + ["fr"] * 3
    decoded: list[str] = []

    def decode(
        _: Whisper, states: Tensor, mask: Any, prompts: Prompts, *, timestamps: bool
    ) -> list[list[int]]:
        decoded.extend([prompts.language] * len(states))
        text = "window number 0" if prompts.language == "en" else ""
        return [prompts.tokenizer.encode(text)] * len(states)

    monkeypatch.setattr(evaluation, "decode_greedy", decode)
    results = Evaluator(both, tiny_prompts(), batch_size=1)(student)
    # Four of the five English windows have another number; the French texts are empty.
    assert results == pytest.approx(
        {"wer": 13 / 24, "wer_en": 4 / 15, "wer_fr": 1.0, "score": 13 / 24}
    )
    assert sorted(decoded) == ["en"] * 5 + ["fr"] * 3


def test_windows_are_trained_under_their_own_language(tmp_path: Path) -> None:
    english = tiny_prepared(tmp_path / "en", 2, silence=0)
    french = tiny_prepared(tmp_path / "fr", 2, silence=0, seed=1, language="fr")
    both = Choice([(english, 1.0), (french, 1.0)])
    batch = collate(both, [0, 2], tiny_prompts(), FIXED)
    languages = tiny_prompts().tokenizer.languages
    assert batch.tokens[:, 1].tolist() == [languages["en"], languages["fr"]]
