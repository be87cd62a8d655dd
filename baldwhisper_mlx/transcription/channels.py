"""Transcripts of the channels of one recording, merged by time: telephone calls, interviews."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from baldwhisper_mlx.output.transcript import Transcript


def merge_channels(transcripts: Sequence[Transcript]) -> Transcript:
    """Merges transcripts of channels that were transcribed by themselves.

    Args:
        transcripts: one for each channel, in their order.

    Returns:
        All segments by their start, with `channel` from 1; the language of the channel with most
        text; the longest duration.

    Raises:
        ValueError: there are none.
    """
    if not transcripts:
        raise ValueError("transcripts: there are none to merge")
    labelled = [
        dataclasses.replace(segment, channel=channel)
        for channel, transcript in enumerate(transcripts, start=1)
        for segment in transcript.segments
    ]
    labelled.sort(key=lambda segment: (segment.start, segment.end, segment.channel))
    longest = max(transcripts, key=lambda transcript: len(transcript.text))
    return dataclasses.replace(
        longest,
        text="".join(segment.text for segment in labelled),
        segments=tuple(dataclasses.replace(s, id=i) for i, s in enumerate(labelled)),
        duration=max(transcript.duration for transcript in transcripts),
    )
