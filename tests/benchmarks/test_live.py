"""The benchmark of live transcription: its clock, and how delays are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.transcription.live_events import Draft, Utterance
from benchmarks.speed.live import Said, delays, listen, matches, split, stream


class Scripted:
    """Confirms one word with every second that was fed, and takes a quarter of a second for it."""

    def __init__(self) -> None:
        self.clock, self.fed, self.blocks = [7.0], 0, list[int]()

    def now(self) -> float:
        return self.clock[0]

    def feed(self, samples: Any) -> list[Any]:
        before = self.fed // 16_000
        self.fed += len(samples)
        self.blocks.append(len(samples))
        if self.fed // 16_000 == before:
            return []
        self.clock[0] += 0.25
        said = ["One", " two,", " free"]
        return [Draft(0.0, 0.0, "".join(said[: self.fed // 16_000]), " x", "en")]

    def finish(self) -> list[Any]:
        self.clock[0] += 0.5
        return [Utterance(0.0, 3.0, "One two three.", (), "en")]


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


SILENCE = np.zeros(3 * 16_000, np.float32)


def test_what_arrives_during_computation_is_fed_at_once(scripted: Scripted) -> None:
    times = [(fed, clock) for _, fed, clock, _ in stream(scripted, SILENCE, scripted.now)]
    assert sum(scripted.blocks) == len(SILENCE)
    assert scripted.blocks[:10] == [1600] * 10
    assert scripted.blocks[10] == 4000
    assert all(clock >= fed for fed, clock in times)
    assert times[-1] == (3.0, pytest.approx(3.75))


def test_words_are_timed_when_they_are_first_confirmed(scripted: Scripted) -> None:
    run = listen(scripted, SILENCE, scripted.now)
    assert [one.word for one in run.words] == ["one", "two", "three"]
    assert [one.fed for one in run.words] == pytest.approx([1.0, 2.05, 3.0], abs=0.1)
    assert run.words[0].clock == pytest.approx(1.25)
    assert run.words[2].clock == pytest.approx(3.75)
    assert (run.n_drafts, run.n_confirmed, run.n_revised) == (3, 3, 1)
    assert run.computation == pytest.approx(1.25)


def test_delays_are_of_the_words_that_both_have() -> None:
    spoken = [Said("one", 0.5), Said("two", 1.0), Said("four", 2.0)]
    confirmed = [Said("one", 1.0, 1.5), Said("two", 2.0, 3.0), Said("three", 9.0, 9.0)]
    found = delays(confirmed, spoken)
    assert found["words"] == 2
    assert (found["unaware_mean"], found["aware_mean"]) == (0.75, 1.5)
    assert found["unaware_p95"] == pytest.approx(0.975)


def test_words_are_compared_without_marks() -> None:
    assert split("It's one, TWO.") == ["it's", "one", "two"]
    assert matches(split("a b c"), split("b x c")) == {1: 0, 2: 2}
