"""Live captions while the microphone is recorded: in a browser whose microphone plays a tone."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.openai_double import Double

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.page

TRANSCRIPTION = "conversation.item.input_audio_transcription"
CONTINUES = "The recording continues, and is transcribed when you stop it."


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def audio_of(double: Double) -> np.ndarray[Any, np.dtype[np.int16]]:
    """The samples that the double has received."""
    parts = [
        base64.b64decode(event["audio"])
        for event in double.received
        if event["type"] == "input_audio_buffer.append"
    ]
    return np.frombuffer(b"".join(parts), np.int16)


def record(page: Page, double: Double) -> None:
    page.get_by_role("button", name="Record", exact=True).click()
    wait_until(lambda: len(audio_of(double)) > 0)


def say_draft(double: Double, item: str, delta: str, unconfirmed: str = "") -> None:
    double.say(f"{TRANSCRIPTION}.delta", item_id=item, delta=delta, unconfirmed=unconfirmed)


def stop(page: Page, state: str = "Finished") -> None:
    page.get_by_role("button", name="Stop recording").click()
    page.locator(".job", has_text="recording-1").locator(".job-state", has_text=state).wait_for()


def test_the_session_is_what_was_chosen(page: Page, double: Double) -> None:
    page.select_option("#model", "second")
    page.select_option("#language", "de")
    record(page, double)
    assert double.received[0] == {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "second", "language": "de"},
                    "turn_detection": {"type": "server_vad"},
                }
            },
        },
    }
    wait_until(lambda: len(audio_of(double)) >= 24000)
    tone = audio_of(double)[-16384:].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
    assert np.argmax(spectrum) * 24000 / len(tone) == pytest.approx(440, abs=2)
    stop(page)


def test_captions_appear_and_the_recording_follows(page: Page, double: Double) -> None:
    record(page, double)
    assert page.locator(".job-state").inner_text() == "Recording"
    double.say("input_audio_buffer.speech_started", item_id="a", audio_start_ms=0)
    say_draft(double, "a", "One small", " steep")
    page.locator(".unconfirmed", has_text="steep").wait_for()
    assert page.locator("#captions-drafts").inner_text() == "One small steep"
    say_draft(double, "a", " step", "")
    page.locator("#captions-drafts", has_text="One small step").wait_for()
    assert page.locator("#captions-finished").inner_text() == ""
    say_draft(double, "b", "one and", " all")
    double.say(f"{TRANSCRIPTION}.completed", item_id="a", transcript="One small <step>.")
    page.locator("#captions-finished", has_text="One small <step>.").wait_for()
    assert page.locator("#captions-drafts").inner_text() == "one and all"
    page.get_by_text("Recording, 0:02").wait_for()
    stop(page)
    assert page.locator(".word").count() == 6
    assert page.locator("#captions-log").is_hidden()
    assert page.locator("#player").is_visible()
    assert double.requests[0]["name"] == "recording-1.webm"
    wait_until(lambda: page.evaluate("document.querySelector('#player').readyState") > 0)
    page.locator(".word", has_text="<step>,").click()
    page.locator(".word.now", has_text="<step>,").wait_for()


def test_on_a_narrow_screen_captions_can_be_seen_and_stopped(page: Page, double: Double) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    record(page, double)
    assert "Captions appear here" in page.locator("#empty").inner_text()
    say_draft(double, "a", "One", " small")
    page.locator(".unconfirmed", has_text="small").wait_for()
    assert page.locator("#empty").is_hidden()
    box = page.locator("#captions-drafts").bounding_box()
    assert box is not None
    assert 0 < box["y"] < 640 - box["height"]
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator(".word").first.wait_for()
    assert page.get_by_role("button", name="Stop", exact=True).is_hidden()


def test_late_transcripts_stand_where_they_were_said(page: Page, double: Double) -> None:
    record(page, double)
    for item in "abc":
        double.say("input_audio_buffer.speech_started", item_id=item)
    for item in "cab":
        double.say(f"{TRANSCRIPTION}.completed", item_id=item, transcript=f"Sentence {item}.")
    double.say("input_audio_buffer.speech_started", item_id="d")
    double.say(f"{TRANSCRIPTION}.completed", item_id="d", transcript="")
    page.locator("#captions-finished p").nth(2).wait_for()
    lines = page.locator("#captions-finished p").all_inner_texts()
    assert lines == [f"Sentence {item}." for item in "abc"]
    stop(page)


def test_a_lost_connection_keeps_text_and_recording(page: Page, double: Double) -> None:
    record(page, double)
    say_draft(double, "a", "One", " small")
    page.locator(".unconfirmed", has_text="small").wait_for()
    double.hang_up()
    page.locator("#problem", has_text="The connection to the server was lost.").wait_for()
    assert CONTINUES in page.locator("#problem").inner_text()
    assert page.locator("#captions-drafts").inner_text() == "One small"
    stop(page)
    assert page.locator(".word").count() == 6


def test_captions_stay_if_the_recording_cannot_be_sent(page: Page, double: Double) -> None:
    record(page, double)
    double.say(f"{TRANSCRIPTION}.completed", item_id="a", transcript="One small step.")
    say_draft(double, "b", "one and", " all")
    page.locator(".unconfirmed", has_text="all").wait_for()
    page.context.set_offline(True)
    stop(page, "The server does not answer")
    assert page.locator("#text").inner_text().split("\n") == ["One small step.", "one and all"]
    assert page.get_by_role("button", name="Download srt").is_hidden()
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "One small step.\none and all"
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again recording-1").click()
    page.locator(".word").first.wait_for()


def test_errors_of_the_session(page: Page, double: Double) -> None:
    record(page, double)
    say_draft(double, "a", "One", " small")
    double.say(f"{TRANSCRIPTION}.failed", item_id="a", error={"message": "the decoder failed"})
    page.locator("#problem", has_text="the decoder failed").wait_for()
    assert page.locator("#captions-finished").inner_text() == "One small"
    double.say("error", error={"message": "the session is too long"})
    double.hang_up()
    page.locator("#problem", has_text=f"the session is too long {CONTINUES}").wait_for()
    stop(page)


def test_a_refused_session(page: Page, double: Double, problems: list[str]) -> None:
    double.key = "secret"
    page.get_by_role("button", name="Record", exact=True).click()
    page.locator("#problem", has_text="The server refuses live captions").wait_for()
    assert CONTINUES in page.locator("#problem").inner_text()
    double.key = None
    stop(page)
    assert len(problems) == 1
    assert "403" in problems.pop()


@pytest.mark.parametrize("key", ["secret-1", 'any (key): "%41"@,/'])
def test_the_key_is_sent(page: Page, double: Double, key: str) -> None:
    double.key = key
    page.reload()
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.locator("#key-form").wait_for(state="hidden")
    record(page, double)
    stop(page)


def test_without_captions(page: Page, double: Double) -> None:
    page.get_by_label("Live captions").uncheck()
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text("Recording, 0:01").wait_for()
    stop(page)
    page.get_by_label("Live captions").check()
    page.select_option("#task", "translate")
    assert page.get_by_label("Live captions").is_disabled()
    assert double.received == []


@pytest.mark.parametrize("double", [Double(realtime=False)])
def test_a_server_without_captions(page: Page, double: Double) -> None:
    assert page.get_by_label("Live captions").is_hidden()
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text("Recording, 0:01").wait_for()
    stop(page)
    assert double.received == []


def test_a_microphone_that_is_unplugged(page: Page, double: Double) -> None:
    page.evaluate(
        """() => {
          const { mediaDevices } = navigator;
          const ask = mediaDevices.getUserMedia.bind(mediaDevices);
          mediaDevices.getUserMedia = async (wanted) => (window.stream = await ask(wanted));
        }"""
    )
    record(page, double)
    page.get_by_text("Recording, 0:01").wait_for()
    page.evaluate(
        """() => {
          const [track] = window.stream.getTracks();
          track.stop();
          track.dispatchEvent(new Event("ended"));
        }"""
    )
    page.locator("#problem", has_text="The microphone is gone.").wait_for()
    page.locator(".job-state", has_text="Finished").wait_for()
    assert page.get_by_role("button", name="Record", exact=True).is_visible()


def test_a_microphone_that_is_denied(browser: Browser, address: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.get_by_role("button", name="Record", exact=True).click()
        page.locator("#problem", has_text="The browser may not use the microphone").wait_for()
        assert page.locator(".job").count() == 0


def test_a_browser_that_cannot_record_frees_the_microphone(page: Page) -> None:
    page.evaluate(
        """() => {
          const { mediaDevices } = navigator;
          const ask = mediaDevices.getUserMedia.bind(mediaDevices);
          mediaDevices.getUserMedia = async (wanted) => (window.stream = await ask(wanted));
          window.MediaRecorder = class { constructor() { throw new Error("no format"); } };
        }"""
    )
    page.get_by_role("button", name="Record", exact=True).click()
    page.locator("#problem", has_text="Recording failed: no format").wait_for()
    assert page.evaluate("window.stream.getTracks()[0].readyState") == "ended"
    assert page.locator(".job").count() == 0


def test_a_recording_can_be_stopped_before_its_captions_begin(page: Page) -> None:
    page.evaluate("() => { AudioContext.prototype.resume = () => new Promise(() => {}); }")
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_text("Recording, 0:01").wait_for()
    stop(page)


def test_a_page_that_gets_no_microphone(browser: Browser, address: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
        page.goto(address)
        page.get_by_text("open the page at localhost or by https").wait_for()
        assert page.get_by_role("button", name="Record", exact=True).is_hidden()


def test_resampling(page: Page) -> None:
    """Against exact sines; what 24 kHz cannot carry is removed, and blocks do not show."""
    resample = """async ([rate, frequency, block]) => {
      const { Resampler } = await import("/page/resampler.js");
      const resampler = new Resampler(rate, 24000);
      const turn = 2 * Math.PI * frequency / rate;
      const input = new Float32Array(rate).map((_, at) => Math.sin(turn * at));
      const output = [];
      for (let at = 0; at < rate; at += block) {
        output.push(...resampler.push(input.subarray(at, at + block)));
      }
      return output;
    }"""
    times = np.arange(24000) / 24000
    for rate in (16000, 24000, 44100, 48000, 96000):
        for frequency in (440, 4000):
            made = np.array(page.evaluate(resample, [rate, frequency, 4800]))
            assert 23900 < len(made) <= 24000
            exact = np.sin(2 * np.pi * frequency * times[: len(made)])
            assert np.abs(made - exact)[100:].max() < 2e-3
    blocks = [page.evaluate(resample, [44100, 440, block]) for block in (128, 1000, 44100)]
    assert blocks[0] == blocks[1] == blocks[2]
    too_high = np.array(page.evaluate(resample, [48000, 14000, 4800]))
    assert np.abs(too_high[100:]).max() < 2e-3
