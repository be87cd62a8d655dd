"""One thread of OpenMP while somebody is inside, and what was set before when all have left."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from baldwhisper_mlx.ops import openmp
from baldwhisper_mlx.ops.openmp import OneThread


class Library:
    def __init__(self) -> None:
        self.levels = 5

    def omp_get_max_active_levels(self) -> int:
        return self.levels

    def omp_set_max_active_levels(self, levels: int) -> None:
        self.levels = levels


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(openmp, "_libraries", lambda: [library])
    monkeypatch.setattr(openmp.sys, "platform", "linux")
    return library


def test_the_last_to_leave_takes_it_back(library: Library) -> None:
    one_thread = OneThread()
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_thread:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with one_thread:
        assert library.levels == 0
        thread.start()
        entered.wait()
    assert library.levels == 0
    leave.set()
    thread.join()
    assert library.levels == 5


def test_an_error_inside_takes_it_back(library: Library) -> None:
    with pytest.raises(KeyError), OneThread():
        raise KeyError
    assert library.levels == 5


def test_other_systems_are_left_alone(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp.sys, "platform", "darwin")
    with OneThread():
        assert library.levels == 5


PRODUCT = "import mlx.core as mx; x = mx.ones((512, 512)); mx.eval(x @ x)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("first", ["", PRODUCT], ids=["alone", "after MKL"])
def test_the_detector_of_speech_starts_no_threads(first: str) -> None:
    code = (
        "import os, numpy, baldwhisper_mlx\n"
        f"{first}"
        "from baldwhisper_mlx.audio.vad import speech_spans\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "speech_spans(numpy.zeros(16000, numpy.float32))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
