"""Policies that confirm words: what they promise, on random drafts."""

from __future__ import annotations

import numpy as np
import pytest

from baldwhisper_mlx.transcription.live_policies import (
    AlignAtt,
    DraftWord,
    LocalAgreement,
    Policy,
)


def word(text: str, attended: float = 0.0) -> DraftWord:
    return DraftWord(f" {text}", (0,), attended - 0.1, attended, attended)


def words(text: str) -> list[DraftWord]:
    return [word(each) for each in text.split()]


def test_alignatt_confirms_words_that_attend_far_from_the_end() -> None:
    draft = [word("a", 0.2), word("b", 0.9), word("c", 1.1), word("d", 1.6)]
    policy = AlignAtt(frame_threshold=25)  # 0.5 s
    assert [policy.confirm(draft, end) for end in (0.6, 0.7, 1.45, 1.65)] == [0, 1, 2, 3]


def test_alignatt_stops_at_the_first_word_that_attends_to_the_end() -> None:
    assert AlignAtt(25).confirm([word("a", 1.9), word("b", 0.2), word("c", 0.3)], 2.0) == 0


def test_alignatt_never_confirms_the_last_word() -> None:
    policy = AlignAtt(0)
    assert policy.confirm([word("trans", 0.1)], 9.0) == 0
    assert policy.confirm([], 9.0) == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_larger_threshold_confirms_no_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draft = [word(str(i), float(rng.uniform(0, 3))) for i in range(8)]
    counts = [AlignAtt(threshold).confirm(draft, 3.0) for threshold in range(0, 150, 10)]
    assert counts == sorted(counts, reverse=True)


def test_local_agreement_confirms_what_two_drafts_share() -> None:
    policy = LocalAgreement()
    assert policy.confirm(words("we keep"), 1.0) == 0
    assert policy.confirm(words("we keep the party"), 1.5) == 2
    # Drafts come without the confirmed words.
    assert policy.confirm(words("the parts that"), 2.0) == 1
    assert policy.confirm(words("parts that carry"), 2.5) == 2


def test_local_agreement_of_three() -> None:
    policy = LocalAgreement(3)
    assert [policy.confirm(words("we keep"), 1.0) for _ in range(3)] == [0, 0, 2]


def test_local_agreement_forgets_the_last_utterance() -> None:
    policy = LocalAgreement()
    policy.confirm(words("we keep"), 1.0)
    policy.reset()
    assert policy.confirm(words("we keep"), 1.0) == 0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("make", [AlignAtt, LocalAgreement])
def test_confirmed_words_are_a_part_of_the_draft(make: type[Policy], seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy = make()
    for received in range(10):
        n = int(rng.integers(0, 6))
        draft = [word("ab"[int(rng.integers(0, 2))], float(rng.uniform(0, 9))) for _ in range(n)]
        assert 0 <= policy.confirm(draft, float(received)) <= n


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="frame_threshold must be 0 or more, not -1"):
        AlignAtt(-1)
    with pytest.raises(ValueError, match="at least 2 decodings, not 1"):
        LocalAgreement(1)
