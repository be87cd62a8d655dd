"""Audio in the containers that soundfile does not write, video included; made with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

# Format, audio codec, its rate in Hz and the format's options, by file name.
KINDS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "memo.m4a": ("ipod", "aac", 44_100, {}),
    "faststart.m4a": ("ipod", "aac", 16_000, {"movflags": "+faststart"}),
    "lossless.m4a": ("ipod", "alac", 16_000, {}),
    "fragmented.mp4": ("mp4", "aac", 48_000, {"movflags": "frag_keyframe+empty_moov"}),
    "video.mp4": ("mp4", "aac", 48_000, {}),
    "video.mov": ("mov", "pcm_s16le", 48_000, {}),
    "phone.3gp": ("3gp", "libopencore_amrnb", 8000, {}),
    "phone.amr": ("amr", "libopencore_amrnb", 8000, {}),
    "radio.aac": ("adts", "aac", 22_050, {}),
    "browser.webm": ("webm", "libopus", 48_000, {}),
    "live.webm": ("webm", "libopus", 48_000, {"live": "1"}),
    "video.mkv": ("matroska", "libopus", 48_000, {}),
    "windows.wma": ("asf", "wmav2", 44_100, {}),
    "video.avi": ("avi", "libmp3lame", 44_100, {}),
    "old.flv": ("flv", "aac", 44_100, {}),
    "television.ts": ("mpegts", "aac", 48_000, {}),
    "disc.ac3": ("ac3", "ac3", 48_000, {}),
    "packed.wv": ("wv", "wavpack", 16_000, {}),
}


def audio_frames(samples: Any, rate: int, layout: str = "mono", first: int = 0) -> av.AudioFrame:
    """Samples (n,), alike in all channels, or (channels, n), as one frame."""
    samples = np.atleast_2d(np.asarray(samples, np.float32))
    n_channels = len(av.AudioLayout(layout).channels)
    planes = np.ascontiguousarray(np.broadcast_to(samples, (n_channels, samples.shape[1])))
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
    return frame


def write_tracks(
    path: Path,
    tracks: Sequence[Any],
    *,
    container: str,
    codec: str,
    rate: int,
    layout: str = "mono",
    default: int = 0,
    video: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes audio tracks of samples (n,) or (channels, n), perhaps beside a grey picture."""
    with av.open(path, "w", format=container, options=options or {}) as output:
        picture = _video_stream(output) if video else None
        streams = [output.add_stream(codec, rate=rate, layout=layout) for _ in tracks]
        for i, stream in enumerate(streams):
            stream.bit_rate = 64_000 if codec != "libopencore_amrnb" else 12_200
            stream.disposition = Disposition.default.value if i == default else 0
        if picture is not None:
            output.mux(_encoded_picture(picture))
        for stream, samples in zip(streams, tracks, strict=True):
            output.mux(stream.encode(audio_frames(samples, rate, layout)))
            output.mux(stream.encode(None))
    return path


def _video_stream(output: Any) -> Any:
    video = output.add_stream("mpeg4", rate=10)
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    return video


def _encoded_picture(video: Any) -> list[Any]:
    """Packets of a second of grey."""
    packets = []
    for i in range(10):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
        frame.pts, frame.time_base = i, Fraction(1, 10)
        packets += video.encode(frame)
    return packets + video.encode(None)


def write_kind(folder: Path, name: str, tone: Any) -> Path:
    """One of `KINDS`, of what `tone` gives for a sample rate."""
    container, codec, rate, options = KINDS[name]
    return write_tracks(
        folder / name,
        [tone(rate)],
        container=container,
        codec=codec,
        rate=rate,
        video=name.startswith("video"),
        options=options,
    )
