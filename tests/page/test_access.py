"""Keys, accessibility, narrow screens, and what the page may load: in a browser."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
    finished.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = finished.evaluate("tags => axe.run({runOnly: tags})", tags)
    assert len(found["passes"]) > 15
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []


def test_narrow_screens_do_not_scroll_sideways(finished: Page) -> None:
    finished.set_viewport_size({"width": 320, "height": 640})
    assert finished.evaluate("document.documentElement.scrollWidth") == 320


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
