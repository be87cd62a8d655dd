"""A loaded model from any thread: as servers use it, one call at a time; and after a fork."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.token_tree import TokenTree
from baldwhisper_mlx.ops import turns
from tests.runtime.conftest import tone

NOISE = [np.random.default_rng(i).normal(0, 0.05, 16_000).astype(np.float32) for i in range(4)]


def request(number: int, model: LoadedModel | str) -> list[int]:
    """Tokens of one request; random weights give no text worth comparing."""
    transcript = baldwhisper_mlx.transcribe(NOISE[number], model, temperature=0.0)
    return [token for segment in transcript.segments for token in segment.tokens]


@pytest.fixture
def model(model_folder: Path) -> LoadedModel:
    return load_model(model_folder)


def on_thread(function: Callable[[], Any]) -> Any:
    """What a function returns on a thread of its own, which has ended then."""
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def test_every_request_on_a_thread_of_its_own(model: LoadedModel) -> None:
    expected = [request(i, model) for i in range(4)]
    assert [on_thread(lambda i=i: request(i, model)) for i in range(4)] == expected
    assert on_thread(lambda: baldwhisper_mlx.detect_language(NOISE[0], model)) == (
        baldwhisper_mlx.detect_language(NOISE[0], model)
    )


def test_a_model_that_a_thread_has_loaded(model_folder: Path, model: LoadedModel) -> None:
    loaded = on_thread(lambda: load_model(model_folder))
    expected = request(0, model)
    assert request(0, loaded) == expected
    assert on_thread(lambda: request(0, loaded)) == expected


def test_a_pool_as_of_fastapi_or_gradio(model: LoadedModel, model_folder: Path) -> None:
    """Both run a function that is not async on a pool of threads, several at once."""
    expected = [request(i, model) for i in range(4)]

    async def requests() -> list[list[int]]:
        jobs = [asyncio.to_thread(request, i % 4, model) for i in range(8)]
        return await asyncio.gather(*jobs)

    assert asyncio.run(requests()) == expected * 2
    with ThreadPoolExecutor(4) as pool:
        by_name = [pool.submit(request, i, str(model_folder)) for i in range(4)]
        assert [job.result() for job in by_name] == expected


def test_two_models_at_once(model: LoadedModel, model_folder: Path) -> None:
    models = [model, load_model(model_folder)]
    expected = [request(i, model) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(request, i % 4, models[i % 2]) for i in range(12)]
        assert [job.result() for job in jobs] == expected * 3


def test_one_call_at_a_time(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    most = []
    encode = Decoder.encode

    def watched(self: Decoder, mel: mx.array, n_frames: Any) -> None:
        inside.append(0)
        most.append(len(inside))
        encode(self, mel, n_frames)
        threading.Event().wait(0.05)
        inside.pop()

    monkeypatch.setattr(Decoder, "encode", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: request(i, model), range(4)))
    assert most == [1] * 4


def test_a_call_that_fails_leaves_the_model_usable(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = request(0, model)
    step = TokenTree.feed
    calls = []

    def failing(self: TokenTree, *arguments: mx.array) -> mx.array:
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TokenTree, "feed", failing)
        with pytest.raises(KeyboardInterrupt):
            on_thread(lambda: request(1, model))
    assert on_thread(lambda: request(0, model)) == expected


def _n_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_threads_of_mlx_do_not_pile_up(model: LoadedModel, model_folder: Path) -> None:
    """On a CPU each stream has a thread, which never ends."""
    if mx.default_device().type == mx.DeviceType.cpu and sys.platform == "linux":
        on_thread(lambda: request(0, model))
        before = _n_threads()
        for _ in range(6):
            on_thread(lambda: request(0, model))
        threading.Event().wait(1)  # the system takes a while to end a thread
        assert _n_threads() < before + 6
    streams = set()
    for _ in range(3):
        streams.add(str(load_model(model_folder)._turn._stream))
    assert len(streams) == 1
    assert len(turns._unused_streams) >= 1


def test_no_abort_at_exit(model_folder: Path) -> None:
    code = (
        "import sys, threading, numpy, baldwhisper_mlx as b\n"
        "model, x = b.load_model(sys.argv[1]), numpy.full(16000, 0.1, 'f4')\n"
        "for _ in range(3):\n"
        "    t = threading.Thread(target=b.transcribe, args=(x, model)); t.start(); t.join()\n"
        "print('done')"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(model_folder)], capture_output=True, timeout=120
        )
        assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_gets_an_error_and_no_endless_wait(model_folder: Path) -> None:
    code = (
        "import os, sys, numpy, baldwhisper_mlx as b\n"
        "model, x = b.load_model(sys.argv[1]), numpy.full(16000, 0.1, 'f4')\n"
        "b.transcribe(x, model, temperature=0.0)\n"
        "for call in (lambda: b.transcribe(x, model), lambda: b.load_model(sys.argv[1])):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n"
        "            call()\n"
        "        except RuntimeError as error:\n"
        "            print(error, flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "print(b.transcribe(x, model, temperature=0.0).duration)"
    )
    command = [sys.executable, "-c", code, str(model_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    first, second, last = done.stdout.splitlines()
    assert "forked" in first
    assert "spawn" in first
    assert "forked" in second
    assert last == "1.0"


def test_a_model_by_name_is_used_with_tones(model_folder: Path) -> None:
    assert on_thread(
        lambda: baldwhisper_mlx.transcribe(tone(1), str(model_folder), temperature=0.0).duration
    ) == pytest.approx(1.0)
