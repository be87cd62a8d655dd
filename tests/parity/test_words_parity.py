"""Words and their times against openai-whisper's `timing.py`."""

from __future__ import annotations

import copy
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import baldwhisper_mlx
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.alignment import heads_to_align
from baldwhisper_mlx.decoding.dtw import median_filter, token_start_positions
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.transcription import words
from baldwhisper_mlx.transcription.segments import emptied_if_blank
from baldwhisper_mlx.transcription.word_splitting import TimedToken, split_words
from tests.parity.test_features_parity import speechlike
from tests.support.tiny import tiny_checkpoint, tiny_dims

timing = pytest.importorskip("whisper.timing")
whisper_transcribe = pytest.importorskip("whisper.transcribe")
ModelDimensions = pytest.importorskip("whisper.model").ModelDimensions
Whisper = pytest.importorskip("whisper.model").Whisper


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 30), columns=st.integers(1, 60), seed=st.integers(0, 999))
def test_warping(rows: int, columns: int, seed: int) -> None:
    cost = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    text, time = timing.dtw_cpu(cost.astype(np.float64))
    jumps = np.pad(np.diff(text), (1, 0), constant_values=1).astype(bool)
    np.testing.assert_array_equal(token_start_positions(cost), time[jumps])


@pytest.mark.parametrize("length", [2, 3, 4, 50])
def test_filter(length: int) -> None:
    x = np.random.default_rng(length).standard_normal((3, 5, length)).astype(np.float32)
    np.testing.assert_array_equal(
        median_filter(x, 7), timing.median_filter(torch.from_numpy(x), 7).numpy()
    )


class Splitter:
    """As much of a tokenizer as the reference needs, over words given as text.

    No word crosses the end of a segment, as ours do not; the reference's may.
    """

    eot = 10_000
    sot_sequence = (1, 2)

    def __init__(self, texts: list[str], sizes: list[int]) -> None:
        self.texts = texts
        self.bounds = list(accumulate([0, *sizes]))

    def split_to_word_tokens(self, tokens: list[int]) -> tuple[list[str], list[list[int]]]:
        text = [TimedToken(t, 0, 0, 1) for t in tokens if t < self.eot]
        found = [
            word
            for begin, end in pairwise(self.bounds)
            for word in split_words(text[begin:end], self.decode, "en")
        ]
        parts = [[one.token for one in part] for _, part in found]
        return [*(text for text, _ in found), "<|endoftext|>"], [*parts, [self.eot]]

    def decode(self, tokens: Any) -> str:
        return "".join(self.texts[token] for token in tokens)


def kept_apart(texts: list[str], sizes: list[int]) -> list[str]:
    """Texts without the marks that the reference would merge into a word of another segment."""
    texts = list(texts)
    for begin, end in pairwise(accumulate([0, *sizes])):
        if begin < end and texts[begin] in words.APPENDED:
            texts[begin] = " the"
        if begin < end and texts[end - 1][0] == " " and texts[end - 1].strip() in words.PREPENDED:
            texts[end - 1] = " fox"
    return texts


PIECES = [" the", " fox", "es", ".", ",", ' "', " (", ")", "!", " a", " b", " -", "?", '"', " "]


def add_their_words(
    segments: list[dict[str, Any]],
    splitter: Splitter,
    times: npt.NDArray[np.float64],
    position: int,
    last_speech: float,
) -> None:
    """The reference's words of segments, of `position` tokens whose times are known."""

    def find_alignment(*_: Any, **__: Any) -> list[Any]:
        if not position:
            return []
        parts, tokens = splitter.split_to_word_tokens([*range(position), splitter.eot])
        edges = np.pad(np.cumsum([len(t) for t in tokens[:-1]]), (1, 0))
        return [
            timing.WordTiming(word, own, times[a], times[b], 0.5)
            for word, own, a, b in zip(parts, tokens, edges[:-1], edges[1:], strict=False)
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "find_alignment", find_alignment)
        timing.add_word_timestamps(
            segments=segments, model=None, tokenizer=splitter, mel=None, num_frames=0,
            last_speech_timestamp=last_speech,
        )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_words_of_a_window(data: st.DataObject) -> None:
    """Any text and any times, in segments of any length, after a pause or none."""
    n_segments = data.draw(st.integers(1, 4))
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=n_segments, max_size=n_segments))
    texts = data.draw(st.lists(st.sampled_from(PIECES), min_size=sum(sizes), max_size=sum(sizes)))
    texts = kept_apart(texts, sizes)
    gaps = data.draw(st.lists(st.integers(0, 90), min_size=sum(sizes) + 1, max_size=sum(sizes) + 1))
    # Moved a little, or a duration that is the limit falls to either side by rounding.
    moved = 0.002 * np.modf(0.618034 * np.arange(1, len(gaps) + 1))[0]
    times = np.cumsum(
        [0.02 * gap + (gap > 0) * move for gap, move in zip(gaps, moved, strict=True)]
    )
    seek = data.draw(st.sampled_from([0, 700]))
    last_speech = data.draw(st.sampled_from([0.0, 5.0]))
    bounds = data.draw(st.lists(st.integers(0, 1500), min_size=2 * n_segments,
                                max_size=2 * n_segments).map(sorted))  # fmt: skip
    offset = seek / 100
    segments, timed, theirs, position = [], [], [], 0
    for i, size in enumerate(sizes):
        start, end = (offset + 0.02 * bound for bound in bounds[2 * i : 2 * i + 2])
        tokens = tuple(range(position, position + size))
        segments.append(Segment(i, seek, start, end, "x", tokens, 0.0, -1.0, 1.0, 0.0))
        timed.append([TimedToken(t, offset + times[t], offset + times[t + 1], 0.5) for t in tokens])
        theirs.append({"seek": seek, "start": start, "end": end, "tokens": list(tokens)})
        position += size
    splitter = Splitter(texts, sizes)
    ours, _ = words.add_words(
        segments, timed, splitter.decode, language="en", last_speech=last_speech
    )
    add_their_words(theirs, splitter, times, position, last_speech)
    for mine, other in zip(map(emptied_if_blank, ours), theirs, strict=True):
        assert mine.words is not None
        if mine.start == mine.end:  # emptied, as their transcribe does after this
            assert other["start"] == pytest.approx(other["end"], abs=0.011)
            assert (mine.text, mine.tokens, mine.words) == ("", (), ())
            continue
        assert [w.word for w in mine.words] == [w["word"] for w in other["words"]]
        for word, wanted in zip(mine.words, other["words"], strict=True):
            assert word.start == pytest.approx(wanted["start"], abs=0.011)
            assert word.end == pytest.approx(wanted["end"], abs=0.011)
        assert mine.start == pytest.approx(other["start"], abs=0.011)
        assert mine.end == pytest.approx(other["end"], abs=0.011)


def test_characters_of_several_tokens(loaded: LoadedModel) -> None:
    """Halves of a character are put together as the reference puts them."""
    tokenizer = pytest.importorskip("whisper.tokenizer").get_tokenizer(True, language="en")
    for text in (" naïve café ☕ 日本", "日本語です", " \ufffd odd", "a b", "..."):
        ids = tokenizer.encode(text)
        timed = [TimedToken(t, 0, 0, 1) for t in ids]
        for language in ("en", "ja"):
            reference = copy.copy(tokenizer)
            object.__setattr__(reference, "language", language)
            theirs, parts = reference.split_to_word_tokens(ids)
            found = split_words(timed, tokenizer.decode, language)
            assert [word for word, _ in found] == theirs
            assert [[one.token for one in own] for _, own in found] == parts


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, Any]:
    """Both programs with random weights whose attention to the audio is sharp, and moves."""
    checkpoint = tiny_checkpoint(tiny_dims(n_audio_layer=1, n_text_layer=2), alignment_heads=None)
    state = checkpoint.state
    for name in state:
        if name.endswith("cross_attn.query.weight"):
            state[name] *= 5
    # Nor does it write timestamps, which the reference would leave out when it listens again.
    begin = checkpoint.vocabulary.timestamp_begin
    state["decoder.token_embedding.weight"][begin:] = 0
    folder = tmp_path_factory.mktemp("sharp") / "tiny"
    loaded = load_model(export_mlx(checkpoint, folder, dtype="float32"))
    model = Whisper(ModelDimensions(**vars(checkpoint.dims)))
    model.load_state_dict(state)
    mask = torch.zeros(checkpoint.dims.n_text_layer, checkpoint.dims.n_text_head, dtype=torch.bool)
    for layer, head in heads_to_align(loaded.config):
        mask[layer, head] = True
    model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return loaded, model.eval()


@pytest.mark.usefixtures("multilingual")
def test_a_recording(
    sharp: tuple[LoadedModel, Any], monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    """Without timestamps both attend from the same tokens, so the times are the same."""
    loaded, model = sharp
    request.getfixturevalue("same_vocabulary")
    options: dict[str, Any] = {
        "language": "en",
        "temperature": 0.0,
        "without_timestamps": True,
        "condition_on_previous_text": False,
        "word_timestamps": True,
    }
    samples = speechlike(16_000 * 12, seed=4)
    # Only the first window: where the next begins depends on the last word's end, and where two
    # paths through the attention are as cheap, rounding decides between them.
    found = whisper_transcribe.transcribe(model, samples, fp16=False, **options)["segments"]
    expected = [segment for segment in found if segment["seek"] == 0 and segment["text"].strip()]
    ours = baldwhisper_mlx.transcribe(samples, loaded, **options).to_dict()["segments"]
    ours = [segment for segment in ours if segment["seek"] == 0]
    distances: list[float] = []
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine["text"] == theirs["text"], (mine, theirs)
        # Half a character at the end, as random weights write, loses the reference its last word.
        same = mine["words"][: len(theirs["words"])]
        assert len(mine["words"]) - len(same) <= 1
        assert [w["word"] for w in same] == [w["word"] for w in theirs["words"]]
        for word, wanted in zip(same, theirs["words"], strict=True):
            distances += [abs(word[key] - wanted[key]) for key in ("start", "end")]
    assert len(distances) > 10
    assert np.mean(np.array(distances) < 0.021) > 0.8
