"""Finds a browser for the tests of the page; as a program, ends with 1 if there is none."""

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


if __name__ == "__main__":
    sys.exit(find_browser() is None)
