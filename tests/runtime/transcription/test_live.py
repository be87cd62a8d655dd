"""LiveTranscriber: drafts that grow, and utterances that are what `transcribe` writes."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import baldwhisper_mlx
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.vad import VadOptions
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.transcription.live import LiveTranscriber
from baldwhisper_mlx.transcription.live_events import Draft, LiveEvent, SpeechStarted, Utterance
from baldwhisper_mlx.transcription.live_policies import AlignAtt, LocalAgreement, Policy
from baldwhisper_mlx.transcription.options import OptionWarning
from tests.runtime.conftest import tiny_config, write_model
from tests.runtime.test_bundled import SAMPLE, words

BLOCK = SAMPLE_RATE // 2


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return load_model()


@pytest.fixture(scope="module")
def sample() -> Samples:
    return load_audio(SAMPLE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Random weights, for what does not depend on the words."""
    return load_model(write_model(tmp_path_factory.mktemp("model") / "tiny", tiny_config()))


@pytest.fixture(scope="module")
def two_utterances(sample: Samples) -> Samples:
    """The sample's first sentence twice, with two seconds of silence around each."""
    silence, said = np.zeros(2 * SAMPLE_RATE, np.float32), sample[: 3 * SAMPLE_RATE]
    return np.concatenate([silence, said, silence, said, silence])


def stream(model: LoadedModel, **settings: Any) -> LiveTranscriber:
    """A stream whose drafts are made whenever the interval says, however long they take."""
    return LiveTranscriber(model, clock=lambda: 0.0, **settings)


TEXT = words(SAMPLE.with_suffix(".txt").read_text())
SENTENCE = TEXT[:9]


def events_of(live: LiveTranscriber, blocks: Iterable[Samples]) -> list[LiveEvent]:
    events = [event for block in blocks for event in live.feed(block)]
    return events + live.finish()


def in_blocks(samples: Samples, size: int = BLOCK) -> list[Samples]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def utterances(events: Iterable[LiveEvent]) -> list[Utterance]:
    return [event for event in events if isinstance(event, Utterance)]


@pytest.mark.parametrize("policy", [AlignAtt(), LocalAgreement()], ids=["alignatt", "agreement"])
def test_confirmed_text_only_grows_and_the_end_is_the_offline_decode(
    bundled: LoadedModel, two_utterances: Samples, policy: Policy
) -> None:
    live = stream(bundled, policy=policy, interval=0.5, word_timestamps=True)
    events = events_of(live, in_blocks(two_utterances, BLOCK // 2))
    confirmed, start = "", None
    n_grown = 0
    for event in events:
        if isinstance(event, SpeechStarted):
            assert start is None
            start = event.start
        elif isinstance(event, Draft):
            assert event.start == start
            assert event.confirmed.startswith(confirmed)
            n_grown += event.confirmed != confirmed
            confirmed = event.confirmed
        else:
            assert event.start == start
            span = slice(round(event.start * SAMPLE_RATE), round(event.end * SAMPLE_RATE))
            offline = baldwhisper_mlx.transcribe(
                two_utterances[span], bundled, word_timestamps=True
            )
            assert event.text == offline.text
            assert (
                words(event.text)[: len(words(confirmed)) // 2]
                == words(confirmed)[: len(words(confirmed)) // 2]
            )
            confirmed, start = "", None
    assert n_grown > 6
    assert len(utterances(events)) == 2
    assert [words(event.text) for event in utterances(events)] == [SENTENCE] * 2


def test_times_are_those_of_the_stream(bundled: LoadedModel, two_utterances: Samples) -> None:
    live = stream(bundled, word_timestamps=True)
    found = utterances(events_of(live, [two_utterances]))
    assert [segment.id for event in found for segment in event.segments] == [0, 1]
    for event in found:
        (segment,) = event.segments
        assert segment.words is not None
        for time in (segment.start, segment.words[0].start, segment.words[-1].end, segment.end):
            assert event.start <= time <= event.end
    length = (len(two_utterances) / SAMPLE_RATE - 2) / 2
    assert found[1].start - found[0].start == pytest.approx(length, abs=0.1)


@pytest.mark.parametrize("size", [1, 7919])
def test_blocks_of_any_size_give_the_same_utterances(
    tiny: LoadedModel, sample: Samples, size: int
) -> None:
    # One sample at a time takes too long for more than the end.
    n = 200 * size if size < 160 else len(sample)
    rest = sample[: len(sample) - n]
    live, whole = (stream(tiny, interval=5, temperature=0.0) for _ in range(2))
    blocks = [rest, *in_blocks(sample[len(rest) :], size)]
    assert utterances(events_of(live, blocks)) == utterances(events_of(whole, [sample]))


def test_nothing_is_decoded_while_nobody_speaks(
    bundled: LoadedModel, encoded_sizes: list[int]
) -> None:
    noise = np.random.default_rng(0).standard_normal(5 * SAMPLE_RATE).astype(np.float32)
    live = stream(bundled)
    assert events_of(live, in_blocks(np.float32(0.01) * noise)) == []
    assert encoded_sizes == []


def test_silence_takes_no_memory(bundled: LoadedModel) -> None:
    live = stream(bundled)
    for _ in range(30):
        live.feed(np.zeros(SAMPLE_RATE, np.float32))
    assert len(live._samples) < SAMPLE_RATE
    assert len(live._probabilities) < 40


def test_long_speech_is_cut_and_nothing_is_lost(bundled: LoadedModel, sample: Samples) -> None:
    live = stream(bundled, longest=4, interval=1.5)
    found = utterances(events_of(live, in_blocks(sample[: 7 * SAMPLE_RATE])))
    assert len(found) > 1
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    assert max(event.end - event.start for event in found) <= 4.1
    text = words("".join(event.text for event in found))
    assert len([word for word in TEXT[:23] if word in text]) >= 20


def test_the_silence_after_a_cut_is_no_utterance(
    bundled: LoadedModel, sample: Samples, encoded_sizes: list[int]
) -> None:
    # The pause is so long that the utterance is cut in it before it ends.
    vad_options = VadOptions(min_silence_duration=8)
    said = sample[: 2 * SAMPLE_RATE]
    silence = np.zeros(7 * SAMPLE_RATE, np.float32)
    live = stream(bundled, longest=6, interval=1, vad_options=vad_options, temperature=0.0)
    events = [event for block in in_blocks(said) for event in live.feed(block)]
    n_encoded = len(encoded_sizes)
    events += events_of(live, in_blocks(np.concatenate([silence, silence])))
    (found,) = utterances(events)
    assert words(found.text)[:3] == ["a", "small", "model"]
    assert events[-1] == found
    # Drafts while the pause may still be one within the utterance, then the utterance.
    assert len(encoded_sizes) - n_encoded <= 5


def test_drafts_can_be_left_out(
    tiny: LoadedModel, sample: Samples, encoded_sizes: list[int]
) -> None:
    live = stream(tiny, interval=None, language="en", temperature=0.0)
    events = events_of(live, in_blocks(sample))
    assert [type(event) for event in events] == [SpeechStarted, Utterance]
    assert encoded_sizes == [1]


def test_drafts_are_conditioned_on_the_given_texts(
    bundled: LoadedModel, sample: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[int]] = []
    decode = type(bundled.decoder).decode

    def recorded(self: Decoder, prompt: list[int], *args: Any, **options: Any) -> Any:
        prompts.append(list(prompt))
        return decode(self, prompt, *args, **options)

    monkeypatch.setattr(Decoder, "decode", recorded)
    # As many hotwords as there is room for leave less to the draft.
    given = {"hotwords": "Ouagadougou " * 200, "initial_prompt": "Bamako"}
    with pytest.warns(OptionWarning, match="223 of 1000 tokens") as caught:
        live = stream(bundled, interval=2, temperature=0.0, **given)  # type: ignore[arg-type]
    assert {warning.filename for warning in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptionWarning)  # said once, rather than of every utterance
        events = events_of(live, in_blocks(sample[: 5 * SAMPLE_RATE]))
    drafts = [event for event in events if isinstance(event, Draft)]
    tokenizer = bundled.tokenizer
    assert len(drafts) == 2
    for prompt in prompts[:2]:
        assert tokenizer.decode(prompt).startswith(" Ouagadougou Ouagadougou")
        assert prompt[-2:] == [tokenizer.sot, tokenizer.no_timestamps]


def test_a_late_caller_gets_one_draft(
    bundled: LoadedModel, sample: Samples, encoded_sizes: list[int]
) -> None:
    live = stream(bundled)
    events = live.feed(sample[: 6 * SAMPLE_RATE])
    assert [type(event) for event in events] == [SpeechStarted, Draft]
    assert encoded_sizes == [1]


def test_the_encoder_takes_the_utterance_so_far(
    bundled: LoadedModel, sample: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    encode = type(bundled.decoder).encode

    def counted(self: object, mel: object, n_frames: list[int]) -> None:
        lengths.append(bundled.model.audio_positions(n_frames[0]))
        encode(self, mel, n_frames)  # type: ignore[arg-type]

    monkeypatch.setattr(type(bundled.decoder), "encode", counted)
    live = stream(bundled)
    for block in in_blocks(sample[: 4 * SAMPLE_RATE]):
        live.feed(block)
    assert 50 <= lengths[0] < lengths[-1] <= 250


def test_threads_share_a_stream(tiny: LoadedModel, sample: Samples) -> None:
    live, alone = (stream(tiny, interval=2.0, temperature=0.0) for _ in range(2))
    events: list[LiveEvent] = []
    blocks, lock = iter(in_blocks(sample)), threading.Lock()

    def work() -> None:
        while True:
            with lock:  # the order of the samples is the callers' matter
                block = next(blocks, None)
                if block is None:
                    return
                events.extend(live.feed(block))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = utterances([*events, *live.finish()])
    assert [found] == utterances(events_of(alone, [sample]))


def test_models_without_alignment_heads_use_local_agreement(tmp_path: Path) -> None:
    named = load_model(write_model(tmp_path / "a", tiny_config()))
    unnamed = load_model(write_model(tmp_path / "b", tiny_config(alignment_heads=())))
    assert isinstance(LiveTranscriber(named)._policy, AlignAtt)
    assert isinstance(LiveTranscriber(unnamed)._policy, LocalAgreement)


def test_drafts_of_random_weights_stay_within_the_text_context(
    tiny: LoadedModel, sample: Samples
) -> None:
    # Random weights write without end, in bytes that are no characters.
    live = stream(tiny, policy=AlignAtt(0), temperature=0.0)
    events = events_of(live, in_blocks(sample))
    assert any(isinstance(event, Draft) for event in events)
    assert len(utterances(events)) == 1


def test_impossible_settings_are_refused(bundled: LoadedModel) -> None:
    for settings, message in (
        ({"interval": 0}, "interval must be above 0 s"),
        ({"longest": 60}, "longest must be from 1 to 28 s, not 60"),
        ({"vad": True}, "vad is for whole recordings"),
        ({"clip_timestamps": "0-1"}, "clip_timestamps is for whole recordings"),
        ({"language": "tlh"}, "unknown language"),
    ):
        with pytest.raises(ValueError, match=message):
            stream(bundled, **settings)  # type: ignore[arg-type]


def test_a_finished_stream_takes_no_more(bundled: LoadedModel) -> None:
    live = stream(bundled)
    assert live.feed(np.zeros(0, np.float32)) == live.finish() == []
    with pytest.raises(RuntimeError, match="make another LiveTranscriber"):
        live.feed(np.zeros(1, np.float32))
