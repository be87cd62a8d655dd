"""The page on the real server, with the bundled model: in a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from baldwhisper_mlx import load_model
from baldwhisper_mlx.server.app import Settings, create_app
from baldwhisper_mlx.server.listening import listening_socket, make_server, url_of
from baldwhisper_mlx.server.models import Models

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.page

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAMPLE = EXAMPLES / "sample.wav"
WORDS = set((EXAMPLES / "sample.txt").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that asks for a key."""
    app = create_app(Models([("tiny-en", load_model())]), Settings(api_key="secret (1)"))
    with listening_socket("127.0.0.1", 0) as listener:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield url_of(listener)
        server.should_exit = True
        thread.join()


def open_page(browser: Browser, address: str) -> Page:
    page = browser.new_context(permissions=["microphone"]).new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    page.get_by_label("API key").fill("secret (1)")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#model option", has_text="tiny-en").wait_for(state="attached")
    return page


def part_of_the_sample(text: str) -> float:
    """How many of the sample's words are in a text."""
    return len(set(text.split()) & WORDS) / len(WORDS)


def test_the_sample_is_transcribed_with_the_key(browser: Browser, address: str) -> None:
    page = open_page(browser, address)
    page.set_input_files("#files", SAMPLE)
    page.locator(".job-state", has_text="Finished").wait_for()
    text = " ".join(page.locator(".segment .words").all_inner_texts())
    assert page.locator(".word").count() == len(text.split())
    assert part_of_the_sample(text) > 0.8
    page.context.close()


def test_live_captions(launch: Callable[[Path], Browser], address: str) -> None:
    """The microphone plays the sample; the captions have its words, and then the transcript has."""
    page = open_page(launch(SAMPLE), address)
    page.get_by_role("button", name="Record", exact=True).click()
    page.locator("#captions-drafts p").first.wait_for()
    deadline = time.monotonic() + 120
    while part_of_the_sample(page.locator("#captions-finished").inner_text()) < 0.6:
        assert page.locator("#problem").is_hidden()
        assert time.monotonic() < deadline
        page.wait_for_timeout(200)
    page.get_by_role("button", name="Stop recording").click()
    page.locator(".job-state", has_text="Finished").wait_for()
    text = " ".join(page.locator(".segment .words").all_inner_texts())
    assert part_of_the_sample(text) > 0.6
    page.context.close()
