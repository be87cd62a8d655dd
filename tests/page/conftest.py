"""A real Chromium, driven by Playwright, on the page over a double of the API."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.openai_double import Double, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def write_tone(path: Path, seconds: float) -> Path:
    """A wav of a quiet tone."""
    times = np.arange(int(16000 * seconds)) / 16000
    samples = (3000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def address(double: Double) -> Iterator[str]:
    with served(double.app()) as url:
        yield url
        double.proceed.set()


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[[Path], Browser]]:
    """Starts browsers whose microphone plays a wav again and again."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, ExitStack() as stack:

        def start(voice: Path) -> Browser:
            browser = playwright.chromium.launch(
                # or else the one that Playwright installed
                executable_path=os.environ.get("BALDWHISPER_BROWSER") or None,
                args=[
                    "--use-fake-device-for-media-stream",
                    f"--use-file-for-fake-audio-capture={voice}",
                    "--autoplay-policy=no-user-gesture-required",
                ],
                # its start script needs the programs of a usual system
                env={**os.environ, "PATH": os.defpath},
            )
            stack.callback(browser.close)
            return browser

        yield start


@pytest.fixture(scope="session")
def browser(launch: Callable[[Path], Browser], tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return launch(write_tone(tmp_path_factory.mktemp("microphone") / "voice.wav", 3))


@pytest.fixture
def problems() -> list[str]:
    """What the browser's console said, but for the status of answers."""
    return []


@pytest.fixture
def page(browser: Browser, address: str, problems: list[str]) -> Iterator[Page]:
    """The page, loaded; what is left in `problems` at the end fails the test."""
    context = browser.new_context(permissions=["microphone", "clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text)
            if message.type in ("error", "warning")
            and "Failed to load resource" not in message.text
            else None
        ),
    )
    page.goto(address)
    page.locator("#model option, #key-form:not([hidden])").first.wait_for(state="attached")
    yield page
    context.close()
    assert problems == []


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "talk.wav", 2.5)
