"""Segments and the advance of the window against openai-whisper's own main loop.

`whisper.transcribe.transcribe` runs unchanged on a fake model whose `decode` returns
prescribed tokens; `split_window` sees the same tokens. The advance is compared through the
`seek` of the windows that follow.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.transcription.segments import make_segments, split_window

torch = pytest.importorskip("torch")
whisper_transcribe = pytest.importorskip("whisper.transcribe")
whisper_tokenizer = pytest.importorskip("whisper.tokenizer")
decoding = pytest.importorskip("whisper.decoding")

TOKENIZER = whisper_tokenizer.get_tokenizer(True, num_languages=99, language="en")
BEGIN = TOKENIZER.timestamp_begin
BLANK = TOKENIZER.encode(" ")[0]
STATISTICS = {
    "temperature": 0.2,
    "avg_logprob": -0.5,
    "compression_ratio": 1.5,
    "no_speech_prob": 0.1,
}


@dataclass
class PrescribedModel:
    """What `transcribe` needs of a model; every `decode` returns the next list of tokens."""

    windows: list[list[int]]
    decoded: int = 0
    dims: Any = field(
        default_factory=lambda: SimpleNamespace(n_mels=80, n_audio_ctx=1500, n_text_ctx=448)
    )
    is_multilingual: bool = True
    num_languages: int = 99
    device: Any = field(default_factory=lambda: torch.device("cpu"))

    def decode(self, mel: Any, options: Any) -> Any:
        tokens = self.windows[self.decoded] if self.decoded < len(self.windows) else []
        self.decoded += 1
        return decoding.DecodingResult(
            audio_features=mel, language="en", tokens=tokens, **STATISTICS
        )


def theirs(windows: list[list[int]], content_frames: int) -> tuple[list[dict[str, Any]], int]:
    model = PrescribedModel(windows)
    mel = torch.zeros(80, content_frames + 3000)
    with mock.patch.object(whisper_transcribe, "log_mel_spectrogram", return_value=mel):
        result = whisper_transcribe.transcribe(model, "", language="en", fp16=False)
    for segment in result["segments"]:
        segment.pop("words", None)  # set to [] on cleared segments even without word times
    return result["segments"], model.decoded


def decode_text(tokens: Any) -> str:
    return str(TOKENIZER.decode([token for token in tokens if token < TOKENIZER.eot]))


def ours(windows: list[list[int]], content_frames: int) -> tuple[list[dict[str, Any]], int]:
    segments: list[dict[str, Any]] = []
    seek = decoded = 0
    while seek < content_frames:
        tokens = windows[decoded] if decoded < len(windows) else []
        decoded += 1
        size = min(3000, content_frames - seek)
        split = split_window(tokens, timestamp_begin=BEGIN, seek=seek, segment_size=size)
        for segment in make_segments(
            split.pieces, decode_text, first_id=len(segments), seek=seek, **STATISTICS
        ):
            raw = {**vars(segment), "tokens": list(segment.tokens)}
            del raw["words"], raw["channel"], raw["language"], raw["logprobs"]
            segments.append(raw)
        seek += split.advance
    return segments, decoded


def is_sane(tokens: list[int]) -> bool:
    """Whether OpenAI's loop treats the tokens sensibly; see `split_window` on the others."""
    stamps = [token >= BEGIN for token in tokens]
    pairs = [i for i in range(1, len(tokens)) if stamps[i - 1] and stamps[i]]
    hangs = bool(pairs) and tokens[pairs[-1] - 1] == BEGIN and stamps[-2:] != [False, True]
    if not pairs:
        return True
    cuts = [0, *pairs, len(tokens)]
    forward = all(tokens[a] <= tokens[b - 1] for a, b in pairwise(cuts) if stamps[b - 1])
    return not hangs and stamps[0] and forward


texts = st.one_of(st.just(BLANK), st.integers(0, 50256))
timestamps = st.one_of(st.integers(0, 5), st.integers(0, 1500)).map(lambda n: BEGIN + n)
free = st.lists(st.one_of(texts, timestamps), max_size=20)


@st.composite
def lawful(draw: st.DrawFn) -> list[int]:
    """Tokens as the timestamp rules allow them: start, text, end, start, ..., rising."""
    times = sorted(draw(st.sets(st.integers(0, 1500), min_size=2, max_size=6)))
    tokens = [BEGIN + times[0]]
    for time in times[1:]:
        tokens += draw(st.lists(texts, min_size=1, max_size=4)) + [BEGIN + time] * 2
    return tokens[: draw(st.integers(1, len(tokens)))]


window = st.one_of(free.filter(is_sane), lawful().filter(is_sane))


@settings(deadline=None, max_examples=300)
@example([[BEGIN + 5, 72, BEGIN + 5, BEGIN + 5, 72, BEGIN + 9, BEGIN + 9]], 3000)  # takes no time
@given(st.lists(window, min_size=1, max_size=4), st.integers(1, 9000))
def test_segments_equal_openai(windows: list[list[int]], content_frames: int) -> None:
    assert ours(windows, content_frames) == theirs(windows, content_frames)


def test_a_long_lawful_run_equals_openai() -> None:
    rng = random.Random(0)
    windows = []
    for _ in range(40):
        tokens = [BEGIN]
        for time in sorted(rng.sample(range(1, 1501), rng.randint(1, 12))):
            tokens += [rng.randrange(50257), BEGIN + time, BEGIN + time]
        windows.append(tokens[: len(tokens) - rng.randint(0, 2)])
    got, decoded = ours(windows, 60_000)
    assert (got, decoded) == theirs(windows, 60_000)
    assert decoded > 20
    assert len(got) > 80
