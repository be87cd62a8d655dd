"""The page's txt, srt and vtt are those of the Python writers: in a browser."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.writers import write_srt, write_txt, write_vtt

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page

WRITERS = {"txt": write_txt, "srt": write_srt, "vtt": write_vtt}
WRITE = """async (asked) => {
  const { write } = await import("/page/formats.js");
  return asked.map(([format, segments]) => write(format, { text: "", segments }));
}"""
TEXTS = [
    " One small <step>,",
    " one & all. --> ---> -->->",
    "",
    " \t ",
    " in two\nlines, and \r\n three\n\n\n",
    "\u2028a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2029h\x1f",
    "\ufeffmarked\u00a0wide\u3000",
    " \u4f60\u597d\uff0c\u4e16\u754c",
    " \u0645\u0631\u062d\u0628\u0627 \U0001f600",
]


def segment(at: int, start: float, end: float, text: str) -> Segment:
    return Segment(
        id=at, seek=0, start=start, end=end, text=text, tokens=(), temperature=0.0,
        avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0,
    )  # fmt: skip


def transcripts() -> list[list[Segment]]:
    """Odd texts and times: whole hours, halves of a millisecond, and random ones."""
    rng = np.random.default_rng(0)
    times = [0, 0.0005, 0.0015, 0.0025, 1.0005, 59.9995, 59.99951, 3599.9996, 3600, 360000.1234]
    random = np.sort(np.round(rng.uniform(0, 8000, 200), rng.integers(2, 6))).tolist()
    found = [
        [
            segment(at, start, end, TEXTS[at % len(TEXTS)])
            for at, (start, end) in enumerate(pairwise(some))
        ]
        for some in (times, random)
    ]
    return [*found, [segment(0, 0.0, 1.0, text) for text in TEXTS], [segment(0, 0, 1, " ")], []]


def test_files_are_those_of_the_command(page: Page) -> None:
    asked, expected = [], []
    for segments in transcripts():
        for name, write in WRITERS.items():
            plain = [{"start": s.start, "end": s.end, "text": s.text} for s in segments]
            asked.append([name, plain])
            expected.append(write(segments))
    assert sum(map(len, expected)) > 10_000
    assert page.evaluate(WRITE, asked) == expected


def test_times_and_sizes_for_people(page: Page) -> None:
    made = page.evaluate(
        """async () => {
          const { clock, size } = await import("/page/formats.js");
          return [[0, 59.9, 60, 754.2, 3600, 40000].map(clock),
            [0, 999, 1500, 99999, 512e6, 2.5e9].map(size)];
        }"""
    )
    assert made == [
        ["0:00", "0:59", "1:00", "12:34", "1:00:00", "11:06:40"],
        ["0 bytes", "999 bytes", "1.5 kB", "100.0 kB", "512 MB", "2.5 GB"],
    ]
