"""The page on the real server, with the bundled model: in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from baldwhisper_mlx import load_model
from baldwhisper_mlx.server.app import Settings, create_app
from baldwhisper_mlx.server.models import Models
from tests.support.openai_double import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.page

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_sample_is_transcribed_with_the_key(browser: Browser) -> None:
    settings = Settings(api_key="secret")
    with served(create_app(Models([("tiny-en", load_model())]), settings)) as address:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.get_by_label("API key").fill("secret")
        page.get_by_role("button", name="Use this key").click()
        page.locator("#model option", has_text="tiny-en").wait_for(state="attached")
        page.set_input_files("#files", EXAMPLES / "sample.wav")
        page.locator(".word").first.wait_for()
        text = " ".join(page.locator(".segment .words").all_inner_texts())
        assert page.locator(".word").count() == len(text.split())
        wanted = (EXAMPLES / "sample.txt").read_text(encoding="utf-8").split()
        assert len(set(text.split()) & set(wanted)) > 0.8 * len(set(wanted))
        page.context.close()
