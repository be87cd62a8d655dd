"""Transcript, the result of a transcription, and its formats as methods."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baldwhisper_mlx.files import write_files
from baldwhisper_mlx.output.document import to_document, write_json
from baldwhisper_mlx.output.formats import FORMATS, WRITERS, format_of
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.subtitles import PLAIN, Layout, LayoutOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class Transcript:
    """The result of a transcription; `duration` is the length of the audio in seconds.

    `language` is None if it was neither given nor detected, because nothing is spoken.

    The methods for subtitles take the options of `Layout` as keywords, which need word timestamps.

    Example:
        >>> transcript = transcribe("talk.mp3", word_timestamps=True)  # doctest: +SKIP
        >>> transcript.save("talk.srt", max_line_width=42, max_line_count=2)  # doctest: +SKIP
    """

    text: str
    segments: tuple[Segment, ...]
    language: str | None
    duration: float

    def to_dict(self) -> dict[str, Any]:
        """The transcript in the layout of OpenAI's JSON output, plus `duration` and `version`.

        Example:
            >>> list(transcript.to_dict())
            ['text', 'segments', 'language', 'duration', 'version']
        """
        return to_document(self.text, self.segments, self.language, self.duration)

    def to_json(self) -> str:
        """All fields, as one line of JSON (docs/transcript.schema.json)."""
        return write_json(self.to_dict())

    def to_txt(self) -> str:
        """Plain text, one line per segment."""
        return self.to_format("txt")

    def to_tsv(self) -> str:
        """Tab-separated start, end (milliseconds) and text."""
        return self.to_format("tsv")

    def to_srt(self, **layout: Unpack[LayoutOptions]) -> str:
        """SubRip subtitles; keywords are the options of `Layout`."""
        return self.to_format("srt", self._layout(layout))

    def to_vtt(self, **layout: Unpack[LayoutOptions]) -> str:
        """WebVTT subtitles; keywords are the options of `Layout`."""
        return self.to_format("vtt", self._layout(layout))

    def to_lrc(self, **layout: Unpack[LayoutOptions]) -> str:
        """Timed lyrics, with the times of words if `highlight_words`."""
        return self.to_format("lrc", self._layout(layout))

    def to_ass(self, **layout: Unpack[LayoutOptions]) -> str:
        """Advanced SubStation Alpha subtitles, with karaoke tags if `highlight_words`."""
        return self.to_format("ass", self._layout(layout))

    def to_format(self, format: str, layout: Layout = PLAIN) -> str:
        """The transcript in a format by name.

        Args:
            format: one of `FORMATS`.
            layout: of words, in subtitles.

        Raises:
            ValueError: there is no such format, or a time cannot be written.
        """
        if format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
        return self.to_json() if format == "json" else WRITERS[format](self.segments, layout)

    def save(
        self,
        path: str | Path,
        format: str | None = None,
        *,
        force: bool = False,
        **layout: Unpack[LayoutOptions],
    ) -> None:
        """Writes a file, completely or not at all.

        Args:
            path: in a folder that exists.
            format: one of `FORMATS`; None to choose it by the ending of the name.
            force: whether an existing file is replaced.
            layout: options of `Layout`, for subtitles.

        Raises:
            FileExistsError: the file exists and `force` is not set.
            FileNotFoundError: there is no such folder.
            ValueError: the format is unknown, or the options do not fit it.
            OSError: the file cannot be written.
        """
        path = Path(path)
        kind = format_of(path.name) if format is None else format
        chosen = self._layout(layout)
        if chosen != PLAIN and kind in ("txt", "tsv", "json"):
            raise ValueError(f"{', '.join(layout)}: only for subtitles, not for {kind}")
        text = self.to_format(kind, chosen)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path.parent}: no such folder to write {path.name} in")
        if path.is_dir():
            raise ValueError(f"{path}: is a folder; give the name of a file")
        if os.path.lexists(path) and not force:
            raise FileExistsError(f"{path}: exists; give force=True to replace it")
        write_files({path: text}, force=force)

    def _layout(self, options: LayoutOptions) -> Layout:
        layout = Layout(**options)
        timed = any(segment.words is not None for segment in self.segments)
        if layout != PLAIN and self.segments and not timed:
            raise ValueError(f"{', '.join(options)}: only with words; use word_timestamps=True")
        layout.check()
        return layout
