"""Batches: each window once an epoch, the same for any processes and after a resume."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.data.batches import (
    IGNORED,
    Mix,
    collate,
    draw_tokens,
    epochs,
    plan_batches,
)
from baldwhisper_convert.data.prepared import SILENCE
from baldwhisper_convert.model.whisper import Whisper
from tests.support.tiny_speech import TinyWindows, tiny_prompts, tiny_teacher, tiny_window

PROMPTS = tiny_prompts()
END = PROMPTS.end
SOT = PROMPTS.tokenizer.sot
ALWAYS, NEVER = Mix(timestamps=1.0, prompts=1.0), Mix(timestamps=0.0, prompts=0.0)

lengths = st.lists(st.integers(1, 1500), min_size=1, max_size=150)


@settings(deadline=None)
@given(lengths, st.integers(1, 9), st.integers(0, 99), st.integers(0, 5))
def test_an_epoch(sizes: list[int], size: int, seed: int, epoch: int) -> None:
    plan = plan_batches(sizes, size, seed, epoch)
    assert plan == plan_batches(sizes, size, seed, epoch)
    used = [i for batch in plan for i in batch]
    assert len(set(used)) == len(used)
    assert set(used) <= set(range(len(sizes)))
    if len(sizes) < size:
        assert sorted(used) == list(range(len(sizes)))
    else:
        assert {len(batch) for batch in plan} == {size}
        assert len(plan) == len(sizes) // size


def test_epochs_and_seeds_differ() -> None:
    plans = [plan_batches([1] * 50, 4, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(plans, 2))


def test_no_window_is_left_out_of_every_epoch() -> None:
    """Not even the longest, although batches are sorted by length."""
    sizes = list(range(1, 36))
    used = Counter(
        i for epoch in range(60) for batch in plan_batches(sizes, 8, 0, epoch) for i in batch
    )
    assert min(used[i] for i in range(len(sizes))) > 40


def test_batches_are_of_like_length() -> None:
    rng = random.Random(0)
    sizes = [rng.randint(1, 1500) for _ in range(512)]
    plan = plan_batches(sizes, 8, 0, 0)
    padded = sum(max(sizes[i] for i in batch) * 8 for batch in plan)
    assert padded < 1.15 * sum(sizes)
    longest = [max(sizes[i] for i in batch) for batch in plan]
    assert longest != sorted(longest)  # the order of the batches is shuffled all the same


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 40), st.integers(0, 9))
def test_going_on_is_as_if_not_interrupted(count: int, size: int, start: int, seed: int) -> None:
    data = TinyWindows([tiny_window(i, positions=1 + i % 5) for i in range(count)])
    whole = list(itertools.islice(epochs(data, size, seed), start + 15))
    assert list(itertools.islice(epochs(data, size, seed, start=start), 15)) == whole[start:]
    assert [epoch for epoch, _ in whole] == sorted(epoch for epoch, _ in whole)
    for epoch in range(whole[-1][0]):
        assert [b for e, b in whole if e == epoch] == plan_batches(
            [w.positions for w in data.windows], size, seed, epoch
        )


def test_no_windows_are_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="no windows"):
        next(epochs(TinyWindows([]), 4, 0))


def some_windows() -> TinyWindows:
    """Three windows: one that follows another, silence, and one of many tokens."""
    text = PROMPTS.tokenizer.encode(" the quick brown fox")
    return TinyWindows(
        [
            tiny_window(0, positions=6, prompt=(5, 6, 7)),
            tiny_window(1, positions=9, kind=SILENCE, tokens=(), text=""),
            tiny_window(2, positions=4, tokens=(*tiny_window().tokens, *text)),
        ]
    )


@pytest.mark.parametrize("is_mel", [False, True])
def test_features_are_padded(is_mel: bool) -> None:
    data = some_windows()
    data.is_mel = is_mel
    batch = collate(data, [2, 0, 1], PROMPTS, NEVER)
    assert batch.is_mel == is_mel
    assert batch.features.shape == ((3, 4, 18) if is_mel else (3, 9, 4))
    assert batch.lengths.tolist() == [4, 6, 9]
    for row, index in enumerate([2, 0, 1]):
        time = 2 * batch.lengths[row] if is_mel else batch.lengths[row]
        features = batch.features[row].T if is_mel else batch.features[row]
        assert (features[:time] == 1 + index).all()
        assert (features[time:] == 0).all()


@pytest.mark.parametrize("mix", [ALWAYS, NEVER])
def test_tokens_targets_and_mask(mix: Mix) -> None:
    """Each real position holds a token and, from the start of transcript on, the next one."""
    data = some_windows()
    batch = collate(data, [0, 1, 2], PROMPTS, mix)
    assert batch.tokens.shape == batch.targets.shape == batch.mask.shape
    longest = 0
    for row, window in enumerate(data.windows):
        timestamps = mix.timestamps == 1
        text = PROMPTS.with_timestamps(window.tokens, timestamps)
        previous = window.prompt if mix.prompts else ()
        sequence, start = PROMPTS.sequence(text, timestamps=timestamps, previous=previous)
        assert start == (len(window.prompt) + 1 if previous else 0)
        length = len(sequence) - 1
        longest = max(longest, length)
        assert batch.tokens[row, :length].tolist() == sequence[:-1]
        assert (batch.tokens[row, length:] == END).all()
        expected = [start <= i < length for i in range(batch.mask.shape[1])]
        assert batch.mask[row].tolist() == expected
        if window.kind == SILENCE:
            assert (batch.targets[row] == IGNORED).all()
        else:
            assert batch.targets[row, start:length].tolist() == sequence[start + 1 :]
            assert (batch.targets[row, :start] == IGNORED).all()
            assert (batch.targets[row, length:] == IGNORED).all()
    assert batch.tokens.shape[1] == longest


def test_draws_do_not_depend_on_who_collates() -> None:
    """One process with four windows, or two with two each, whatever their order."""
    windows = [tiny_window(i, positions=3, prompt=(1, 2)) for i in range(40)]
    data = TinyWindows(windows)

    def rows(order: list[int], **options: Any) -> dict[int, list[int]]:
        batch = collate(data, order, PROMPTS, Mix(prompts=0.5), **options)
        return {
            i: [t for t in row if t != END]
            for i, row in zip(order, batch.tokens.tolist(), strict=True)
        }

    whole = rows(list(range(40)), seed=3, step=2)
    halves = rows(list(range(1, 40, 2)), seed=3, step=2) | rows(
        [*range(38, -1, -2)], seed=3, step=2
    )
    assert halves == whole
    assert rows(list(range(40)), seed=3, step=3) != whole
    assert rows(list(range(40)), seed=4, step=2) != whole


@pytest.mark.parametrize("mix", [Mix(), Mix(timestamps=0.9, prompts=0.6), ALWAYS, NEVER])
def test_shares_of_the_mix(mix: Mix) -> None:
    n = 1500
    drawn = [
        draw_tokens(tiny_window(prompt=(1, 2)), PROMPTS, mix, random.Random(i)) for i in range(n)
    ]
    prompted = sum(start > 0 for _, start, _ in drawn) / n
    stamped = sum(PROMPTS.timestamp(0) in tokens for tokens, _, _ in drawn) / n
    plain = sum(PROMPTS.tokenizer.no_timestamps in tokens for tokens, _, _ in drawn) / n
    assert prompted == pytest.approx(mix.prompts, abs=0.05)
    assert stamped == pytest.approx(mix.timestamps, abs=0.05)
    assert stamped + plain == 1


def test_windows_that_follow_none_have_no_prompt() -> None:
    tokens, start, with_targets = draw_tokens(tiny_window(), PROMPTS, ALWAYS, random.Random(0))
    assert (tokens[0], start, with_targets) == (SOT, 0, True)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_silence_comes_in_both_modes_without_targets(share: float) -> None:
    window = tiny_window(kind=SILENCE, tokens=())
    mix = Mix(timestamps=share)
    tokens, start, with_targets = draw_tokens(window, PROMPTS, mix, random.Random(0))
    assert tokens == [*PROMPTS.sot_sequence(timestamps=share == 1), END]
    assert (start, with_targets) == (0, False)


@pytest.mark.parametrize("change", [{"timestamps": 1.1}, {"prompts": -0.1}])
def test_mixes_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Mix(**change)


def test_encoding_a_batch() -> None:
    """States pass; log-mel goes through the encoder, under the mask of what is real."""
    model = Whisper.from_checkpoint(tiny_teacher())
    windows = [tiny_window(positions=length) for length in (6, 4)]
    states, mask = collate(TinyWindows(windows), [0, 1], PROMPTS).encode(model)
    assert mask is not None
    assert mask[:, 0, 0].sum(1).tolist() == [6, 4]
    assert states.shape == (2, 6, 4)
    mel = TinyWindows(windows, is_mel=True, width=80)
    together, mask = collate(mel, [0, 1], PROMPTS).encode(model)
    assert together.shape == (2, 6, 16)
    alone, none = collate(mel, [0], PROMPTS).encode(model)
    assert none is None
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


def test_moving_a_batch() -> None:
    batch = collate(some_windows(), [0, 1, 2], PROMPTS)
    moved = batch.to(torch.device("meta"))
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            assert getattr(moved, name).device.type == "meta"
            assert getattr(moved, name).shape == value.shape
        else:
            assert getattr(moved, name) == value


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_labels_of_silence(share: float) -> None:
    """No speech, then the end; with timestamps after the first one, which the runtime forces."""
    data = TinyWindows([tiny_window(0, positions=9, kind=SILENCE, tokens=(), text="")])
    batch = collate(data, [0], PROMPTS, Mix(timestamps=share), label_silence=True)
    start = PROMPTS.sot_sequence(timestamps=share == 1)
    first = [PROMPTS.timestamp(0)] if share else []
    assert batch.tokens[0].tolist() == [*start, *first]
    expected = [*start, *first, END][1:]
    expected[0] = PROMPTS.tokenizer.no_speech
    assert batch.targets[0].tolist() == expected


def test_labels_of_speech_do_not_depend_on_those_of_silence() -> None:
    data = some_windows()
    with_labels = collate(data, [0, 2], PROMPTS, label_silence=True)
    without = collate(data, [0, 2], PROMPTS)
    assert torch.equal(with_labels.targets, without.targets)
    assert torch.equal(with_labels.tokens, without.tokens)
