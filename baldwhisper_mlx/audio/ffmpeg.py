"""Decodes one audio track with FFmpeg's libraries, and says what of it is missing."""

from __future__ import annotations

import io
from pathlib import PurePath
from typing import TYPE_CHECKING

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.containers import (
    GuardedFile,
    audio_track,
    end_of_data,
    opened,
    reason_of,
)
from baldwhisper_mlx.audio.fragments import claimed_packets
from baldwhisper_mlx.audio.integrity import (
    Mp3Header,
    container_missing_bytes,
    mp3_header,
    wav_data,
)
from baldwhisper_mlx.audio.packets import TrackReader
from baldwhisper_mlx.audio.recording import LoadOptions, Recording
from baldwhisper_mlx.audio.timeline import Piece, Silence, Timeline

if TYPE_CHECKING:
    from av.container import InputContainer

_STATES_DURATION = {"ape", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "tta", "wv"}
"""Formats with the length in their header; of the others, FFmpeg estimates it."""
_SHORTEST_MISSING = 0.05
"""Seconds at the end of a track below which nothing is said to be missing."""


def decode_container(
    file: io.FileIO, name: str, options: LoadOptions, *, is_endless_wav: bool = False
) -> list[Samples]:
    """Decodes what libsndfile cannot decode, or only a part of.

    Args:
        file: at its start.
        name: for it in messages.
        options: what is wanted.
        is_endless_wav: whether the sizes in a WAV header are ignored.

    Returns:
        Samples (n,) of each channel in use, 16 kHz.

    Raises:
        ValueError: not a known container, nothing in it that can be decoded, no such track.
    """
    recording = Recording(name, options)
    header = mp3_header(file)
    n_missing = header.missing if header else container_missing_bytes(file)
    size = end_of_data(file)
    if (n_packets := claimed_packets(file, size)) > size:
        raise ValueError(f"{name}: damaged, a fragment claims {n_packets} packets in {size} bytes")
    file.seek(0)
    guarded = GuardedFile(file, options.check, PurePath(name).suffix)
    with opened(guarded, name, n_missing, is_endless_wav=is_endless_wav) as container:
        track, note = audio_track(container, name, options.track)
        if note is not None:
            recording.note(note)
        stated = _stated_seconds(container, header)
        if is_endless_wav and track.bit_rate:
            recording.check_length(8 * size / track.bit_rate)
        elif stated is not None:
            recording.check_length(stated)
        reader = TrackReader(container, track, guarded)
        timeline = Timeline(None if reader.is_untimed else stated)
        _decode(reader, timeline, recording)
        alone = len(container.streams) == 1
    _report_gaps(recording, timeline)
    if is_endless_wav:
        _report_wrong_size(file, recording)
        return recording.finish()
    end, least = reader.end, ""
    if stated is not None and (alone or n_missing):
        end = max(end, stated)
    elif n_missing:
        end, least = max(end, timeline.position * (1 + n_missing / size)), "at least "
    _report_end(recording, end - timeline.position, least, n_missing, reader.is_cut)
    return recording.finish()


def _stated_seconds(container: InputContainer, header: Mp3Header | None) -> float | None:
    """The length that the file says it has."""
    if not container.duration:
        return None
    found = container.duration / 1e6
    if header is not None:  # FFmpeg does not believe the header of a file that is longer
        return min(found, header.seconds) if header.seconds else None
    if container.format.name == "matroska,webm":  # which states the time at its end
        found -= max(0, container.start_time or 0) / 1e6
    return found if container.format.name in _STATES_DURATION else None


def _decode(reader: TrackReader, timeline: Timeline, recording: Recording) -> None:
    import av

    try:
        for piece in reader.pieces():
            for placed in timeline.add(piece):
                _put(placed, recording)
    except av.FFmpegError as error:
        raise ValueError(f"{recording.name}: damaged audio ({reason_of(error)})") from None
    for placed in timeline.finish():
        _put(placed, recording)
    if recording.seconds == 0 and reader.n_damaged:
        raise ValueError(
            f"{recording.name}: damaged, none of {reader.n_packets} packets of audio can be decoded"
        )


def _put(placed: Piece | Silence, recording: Recording) -> None:
    if isinstance(placed, Silence):
        recording.add_silence(placed.seconds)
    else:
        recording.add(placed.samples, placed.rate)


def _report_gaps(recording: Recording, timeline: Timeline) -> None:
    if timeline.gaps:
        seconds = sum(length for _, length in timeline.gaps)
        first = timeline.gaps[0][0]
        recording.missing(
            f"{seconds:.1f} s of audio are missing in {len(timeline.gaps)} place(s), the first at "
            f"{first:.1f} s (damaged, or never recorded); they were taken for silence"
        )


def _report_end(
    recording: Recording, seconds: float, least: str, n_missing: int, is_cut: bool
) -> None:
    if seconds > max(_SHORTEST_MISSING, 0.001 * recording.seconds):
        what = f"{least}{seconds:.1f} s of audio are"
    elif n_missing:
        what = f"{n_missing} bytes are"
    elif is_cut:
        what = "its last packet is incomplete, audio is"
    else:
        return
    recording.missing(f"damaged or cut off: {what} missing at its end")


def _report_wrong_size(file: io.FileIO, recording: Recording) -> None:
    wav = wav_data(file)
    if wav is not None and wav.is_too_short:
        recording.note(
            f"its header says that {wav.declared} bytes are audio, but {wav.available} are there; "
            "all were read"
        )
