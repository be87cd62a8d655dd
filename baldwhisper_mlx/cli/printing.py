"""Prints transcripts on standard output: segments as they come on a terminal, else each as a whole.

On a terminal, words can have the colour of their confidence, and what cannot be printed is escaped.
"""

from __future__ import annotations

import math
import os
import re
import sys

import click

from baldwhisper_mlx.cli.progress import beside_bars
from baldwhisper_mlx.cli.reporting import label
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.subtitles import Layout, one_line
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.output.writers import label as channel_label
from baldwhisper_mlx.output.writers import write_txt
from baldwhisper_mlx.terminal import printable


class Printer:
    """Prints the transcripts of files in their order.

    Args:
        format: one of `FORMATS`.
        layout: of subtitles.
        headers: whether each transcript stands under the name of its file.
        colors: whether words have the colour of their confidence, if standard output is a terminal
            and the environment has no NO_COLOR.
    """

    def __init__(self, format: str, layout: Layout, *, headers: bool, colors: bool) -> None:
        self._format, self._layout, self._headers = format, layout, headers
        self._is_terminal = sys.stdout.isatty()
        self._colors = colors and self._is_terminal and not os.environ.get("NO_COLOR")
        self._name: str | None = None
        self._n_printed = 0

    @property
    def takes_segments(self) -> bool:
        """Whether segments may be printed as they come: as lines of text, on a terminal."""
        return self._is_terminal and self._format == "txt"

    def segment(self, name: str, segment: Segment) -> None:
        """Prints the next segment of a file.

        Raises:
            OSError: standard output is closed.
        """
        self._begin(name)
        self._echo(colored(segment) if self._colors else self._safe(write_txt([segment])))
        self._n_printed += 1

    def transcript(self, name: str, transcript: Transcript) -> None:
        """Prints what has not been printed yet of a file.

        Raises:
            ValueError: a time cannot be written. OSError: standard output is closed.
        """
        if self.takes_segments:
            self._begin(name)
            for segment in transcript.segments[self._n_printed :]:
                self.segment(name, segment)
        else:
            text = transcript.to_format(self._format, self._layout)
            self._begin(name)
            self._echo(self._safe(text))

    def _begin(self, name: str) -> None:
        if name == self._name:
            return
        if self._headers:
            self._echo(("" if self._name is None else "\n") + f"==> {label(name)} <==\n")
        self._name, self._n_printed = name, 0

    def _safe(self, text: str) -> str:
        return printable(text, keep="\n\t") if self._is_terminal else text

    def _echo(self, text: str) -> None:
        with beside_bars(sys.stdout):
            # Bytes, because output is UTF-8 whatever the locale.
            click.echo(text.encode("utf-8", errors="surrogateescape"), nl=False)


def colored(segment: Segment) -> str:
    """The line of a segment for a terminal, with its words in the colour of their confidence.

    Without the times of words only the mean over the tokens of the segment's window is known, and
    the whole line has its colour.

    Args:
        segment: perhaps with words.
    """
    plain = one_line(segment.text)
    if not plain:
        return ""
    words = [(re.sub(r"\s+", " ", word.word), word.probability) for word in segment.words or ()]
    if one_line("".join(text for text, _ in words)) != plain:
        words = [(plain, _mean_probability(segment))]
    first, *rest = words
    styled = [
        click.style(printable(text), fg=_color(probability))
        for text, probability in ((first[0].lstrip(), first[1]), *rest)
    ]
    return f"{channel_label(segment.channel)}{''.join(styled)}\n"


def _mean_probability(segment: Segment) -> float:
    return math.exp(segment.avg_logprob)


def _color(probability: float) -> str:
    """Red, yellow or green by thirds of the probability's cube, as whisper.cpp has its colours."""
    cube = probability**3
    if cube >= 2 / 3:
        return "green"
    return "yellow" if cube >= 1 / 3 else "red"
