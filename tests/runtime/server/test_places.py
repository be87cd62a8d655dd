"""Places for recordings in memory: long ones leave room for short ones."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.recording import TooLongError
from baldwhisper_mlx.server import places
from baldwhisper_mlx.server.places import BATCH, LONG_SECONDS, MOST_LONG, Places
from tests.runtime.server.conftest import SPEECH, Serve, is_free
from tests.runtime.server.test_uploads import form, part, post

HOUR = 4 * 3600.0


class Recordings:
    """Recordings that stay in memory until they are released."""

    def __init__(self, most: float = HOUR) -> None:
        self.places, self._most = Places(100), most
        self.in_memory: list[float] = []
        self.n_decoded = 0
        self.most_in_memory = 0

    async def hold(self, seconds: float, release: asyncio.Event) -> None:
        async def load(most: float) -> Any:
            self.n_decoded += 1
            await asyncio.sleep(0)
            if seconds > most:
                raise TooLongError
            return np.zeros(1, np.float32)

        async with self.places.in_memory(load, self._most):
            self.in_memory.append(seconds)
            self.most_in_memory = max(self.most_in_memory, len(self.in_memory))
            await release.wait()
            self.in_memory.remove(seconds)


async def settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


def test_long_recordings_leave_places_for_short_ones() -> None:
    async def scene() -> None:
        recordings, release, soon = Recordings(), asyncio.Event(), asyncio.Event()
        long = [asyncio.create_task(recordings.hold(HOUR, release)) for _ in range(20)]
        await settle()
        assert recordings.in_memory == [HOUR] * MOST_LONG
        short = [asyncio.create_task(recordings.hold(2.0, soon)) for _ in range(20)]
        await settle()
        assert sorted(recordings.in_memory) == [2.0] * (BATCH - MOST_LONG) + [HOUR] * MOST_LONG
        soon.set()
        await asyncio.gather(*short)
        release.set()
        await asyncio.gather(*long)
        assert recordings.most_in_memory == BATCH
        assert recordings.n_decoded == 20 + 2 * 20

    asyncio.run(scene())


def test_a_long_recording_that_is_no_longer_wanted() -> None:
    async def scene() -> None:
        recordings, release = Recordings(), asyncio.Event()
        tasks = [asyncio.create_task(recordings.hold(HOUR, release)) for _ in range(12)]
        await settle()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        release.set()
        again = [asyncio.create_task(recordings.hold(HOUR, release)) for _ in range(12)]
        await asyncio.wait_for(asyncio.gather(*again), 10)

    asyncio.run(scene())


@pytest.mark.parametrize("most", [LONG_SECONDS - 1, LONG_SECONDS + 1])
def test_what_is_longer_than_allowed(most: float) -> None:
    async def scene() -> None:
        recordings, release = Recordings(most), asyncio.Event()
        release.set()
        with pytest.raises(TooLongError):
            await recordings.hold(most + 1, release)
        await recordings.hold(most, release)

    asyncio.run(scene())


def test_the_limit_of_a_server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LONG_SECONDS", 1.0)  # so that the speech is long
    server = serve(max_duration=1.5)
    body = form(part("file", SPEECH.read_bytes(), "x"))
    status, found = post(server, body)
    assert (status, found["error"]["param"]) == (400, "file")
    assert "longer than 1.5 s" in found["error"]["message"]
    assert is_free(server)
    server = serve()
    status, found = post(server, body)
    assert status == 200
    assert found["text"]
