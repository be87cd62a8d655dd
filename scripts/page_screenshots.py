"""Draws the pictures of docs/page.md: the page with the bundled model and the sample, in a browser.

    python scripts/page_screenshots.py

Needs what `make test-page` installs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from find_browser import find_browser
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from baldwhisper_mlx import load_model  # noqa: E402
from baldwhisper_mlx.server.app import Settings, create_app  # noqa: E402
from baldwhisper_mlx.server.models import Models  # noqa: E402
from tests.support.openai_double import served  # noqa: E402

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WORD = 12


def main() -> None:
    """Draws both pictures into docs/."""
    app = create_app(Models([("tiny-en", load_model())]), Settings())
    with served(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser())
        page = browser.new_page(viewport={"width": 1120, "height": 640})
        page.goto(address)
        draw(page)
        browser.close()


def draw(page: Page) -> None:
    """Transcribes the sample, jumps to a word, and takes the pictures."""
    page.set_input_files("#files", ROOT / "examples/sample.wav")
    word = page.locator(".word").nth(WORD)
    word.click(timeout=60_000)
    page.evaluate("document.querySelector('#player').pause()")
    page.mouse.move(0, 0)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        path = ROOT / f"docs/page-{scheme}.png"
        page.screenshot(path=path)
        with Image.open(path) as picture:  # with fewer colours it is a third as large
            picture.convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
