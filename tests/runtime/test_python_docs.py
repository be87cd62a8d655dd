"""The Python code of the documentation runs, on a short recording."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.support.pages import ROOT, blocks, read

SAMPLE = ROOT / "examples" / "sample.wav"
SNIPPETS = [
    (page, number, snippet)
    for page in ("docs/python.md", "docs/output.md")
    for number, snippet in enumerate(blocks(read(page), "python"), start=1)
]

(ASYNCHRONOUS,) = [snippet for _, _, snippet in SNIPPETS if "asyncio" in snippet]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with talk.mp3, in which the test runs."""
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    soundfile.write(tmp_path / "talk.mp3", samples, rate)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(snippet: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "snippet", "exec"), names)
    return names


@pytest.mark.parametrize(("page", "number", "snippet"), SNIPPETS, ids=lambda value: str(value)[:16])
def test_snippets_run(
    page: str, number: int, snippet: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(snippet)
    assert "small model" in capsys.readouterr().out
    for path in folder.glob("talk.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["version"] == 1


def test_there_are_snippets() -> None:
    assert [page for page, _, _ in SNIPPETS] == ["docs/python.md"] * 4 + ["docs/output.md"]


def test_the_event_loop_is_free_meanwhile(folder: Path) -> None:
    """What runs beside the asynchronous example gets its turns while a segment is computed."""
    names = run(ASYNCHRONOUS)
    texts: list[str] = []
    threads: set[int] = set()
    load = names["baldwhisper_mlx"].transcribe_iter

    def watched(*arguments: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return load(*arguments, **options)

    async def beside() -> int:
        turns = 0
        while not texts:
            turns += 1
            await asyncio.sleep(0.001)
        return turns

    async def both() -> int:
        counting = asyncio.create_task(beside())
        async for segment in names["segments_of"]("talk.mp3"):
            texts.append(segment.text)
        return await counting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names["baldwhisper_mlx"], "transcribe_iter", watched, raising=False)
        assert asyncio.run(both()) > 3
    assert "small model" in "".join(texts)
    assert threads
    assert threading.get_ident() not in threads


def test_a_cancelled_task_leaves_the_model_free(folder: Path) -> None:
    names = run(ASYNCHRONOUS)

    async def cancelled() -> None:
        async def consume() -> None:
            async for _ in names["segments_of"]("talk.mp3"):
                await asyncio.sleep(60)

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    found = names["baldwhisper_mlx"].transcribe("talk.mp3", names["model"])
    assert "small model" in found.text
