"""Keys, accessibility, narrow screens, and what the page may load: in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.accessibility import violations
from tests.support.openai_double import Double

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page


@pytest.fixture
def finished(page: Page, tone: Path) -> Page:
    """The page with a transcript and an error on it."""
    broken = tone.with_name("notes.wav")
    broken.write_bytes(b"no audio")
    page.set_input_files("#files", [tone, broken])
    page.locator(".job-state.error").wait_for()
    page.locator(".word").first.wait_for()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_axe_finds_nothing(finished: Page, scheme: str, width: int) -> None:
    finished.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    finished.set_viewport_size({"width": width, "height": 800})
    assert violations(finished) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_while_recording(page: Page, double: Double, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.get_by_role("button", name="Record", exact=True).click()
    kind = "conversation.item.input_audio_transcription"
    double.say(f"{kind}.completed", item_id="a", transcript="One small step.")
    double.say(f"{kind}.delta", item_id="b", delta="one and", unconfirmed=" all")
    page.locator(".unconfirmed", has_text="all").wait_for()
    assert violations(page) == []


@pytest.mark.parametrize("width", [320, 640])
def test_zoom_and_narrow_screens_do_not_scroll_sideways(finished: Page, width: int) -> None:
    """WCAG asks for 320 pixels; 640 are those of a usual window at 200 %."""
    finished.set_viewport_size({"width": width, "height": 640})
    assert finished.evaluate("document.documentElement.scrollWidth") == width


def test_forced_colours_and_less_motion(page: Page, tone: Path, double: Double) -> None:
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    page.set_input_files("#files", tone.rename(tone.with_name("slow.wav")))
    page.locator("#text", has_text="One small").wait_for()
    bar = page.locator("progress")
    assert bar.evaluate("bar => getComputedStyle(bar).visibility") == "hidden"
    double.proceed.set()
    page.locator(".word").nth(2).click()
    now = page.locator(".word.now")
    assert now.evaluate("word => getComputedStyle(word).outlineStyle") == "solid"


def test_the_keyboard_is_enough(page: Page, tone: Path) -> None:
    def tab_to(target: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("target => document.activeElement.matches(target)", target):
                return
        raise AssertionError(f"Tab does not reach {target}")

    page.on("filechooser", lambda chooser: chooser.set_files(tone))
    tab_to("#pick")
    page.keyboard.press("Enter")
    page.locator(".word").first.wait_for()
    tab_to("#text")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.querySelector('#player').paused")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#player').paused")
    page.evaluate("document.querySelector('#player').currentTime = 0.5")
    page.locator(".word.now", has_text="small").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator(".word.now", has_text="<step>,").wait_for()
    tab_to("[data-format=srt]")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "talk.srt"
    tab_to("#record")
    page.keyboard.press("Space")
    page.get_by_text("Recording, 0:01").wait_for()
    page.keyboard.press("Space")
    page.locator(".job", has_text="recording-1.webm").get_by_text("Finished").wait_for()


def test_everything_is_reached_by_tab(finished: Page) -> None:
    finished.evaluate("document.activeElement.blur()")
    names = []
    for _ in range(40):
        finished.keyboard.press("Tab")
        names.append(
            finished.evaluate(
                "(e => e.id || e.getAttribute('aria-label') || e.textContent)"
                "(document.activeElement)"
            )
        )
    order = ["pick", "record", "model", "language", "task", "talk.wav", "Remove talk.wav"]
    order += ["notes.wav", "Try again notes.wav", "copy", "Download txt", "player", "text"]
    positions = [names.index(name) for name in order]
    assert positions == sorted(positions)


def test_a_key_is_asked_for(page: Page, double: Double, tone: Path) -> None:
    double.key = "secret"
    page.reload()
    page.get_by_label("API key").fill("secret")
    page.get_by_role("button", name="Use this key").click()
    page.locator("#key-form").wait_for(state="hidden")
    page.set_input_files("#files", tone)
    page.locator(".word").first.wait_for()


def test_the_policy_keeps_foreign_code_out(page: Page, problems: list[str]) -> None:
    ran = page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.head.append(script);
          return window.ran === true;
        }"""
    )
    assert not ran
    with pytest.raises(Exception, match="Failed to fetch"):
        page.evaluate("fetch('http://localhost:9/')")
    assert len(problems) >= 2
    assert all("Content Security Policy" in problem for problem in problems)
    problems.clear()
