"""Prints the path of this machine's Chromium or Chrome, for the tests of the page.

    python scripts/find_browser.py

The variable BALDWHISPER_BROWSER names another one. Prints nothing and ends with 1 if there is none:
then the one is used that `playwright install chromium` brings. The tests themselves look for no
program; `make test-page` passes them the path.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOLDERS = "/usr/bin:/usr/local/bin:/opt/homebrew/bin:/snap/bin"
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def find_browser() -> str | None:
    """The browser of this machine; None for the one that Playwright installed."""
    if named := os.environ.get("BALDWHISPER_BROWSER"):
        return named
    for name in BROWSERS:
        if path := shutil.which(name, path=FOLDERS):
            return path
    return str(MAC) if MAC.exists() else None


def main() -> None:
    """Prints the path."""
    browser = find_browser()
    if browser is None:
        sys.exit(1)
    print(browser)


if __name__ == "__main__":
    main()
