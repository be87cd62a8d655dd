"""The output formats by name, which is also the ending of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from baldwhisper_mlx.output.karaoke import write_ass, write_lrc
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.subtitles import Layout
from baldwhisper_mlx.output.writers import write_srt, write_tsv, write_txt, write_vtt

Writer = Callable[[Sequence[Segment], Layout], str]

WRITERS: Mapping[str, Writer] = {
    "txt": lambda segments, _: write_txt(segments),
    "srt": write_srt,
    "vtt": write_vtt,
    "tsv": lambda segments, _: write_tsv(segments),
    "lrc": write_lrc,
    "ass": write_ass,
}
"""Name to writer, of the formats that consist of segments alone."""

FORMATS = (*WRITERS, "json")
"""Names of all formats."""


def format_of(name: str) -> str:
    """The format of a file, by its ending.

    Raises:
        ValueError: no format has this ending.

    Example:
        >>> format_of("talk.srt")
        'srt'
    """
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    if ending not in FORMATS:
        raise ValueError(
            f"{name}: its ending names no format; use one of {', '.join(FORMATS)}, or give format="
        )
    return ending
