"""Files in, transcripts out: in a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.openai_double import ARABIC, N_DELTAS, TEXT, Double

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page


def send(page: Page, *paths: Path) -> None:
    page.set_input_files("#files", paths)


def wait_for_state(page: Page, name: str, state: str) -> None:
    page.locator(".job", has_text=name).locator(".job-state", has_text=state).wait_for()


def test_a_file_becomes_text_with_times(page: Page, tone: Path, double: Double) -> None:
    page.select_option("#model", "second")
    page.select_option("#language", "de")
    send(page, tone)
    wait_for_state(page, "talk.wav", "Finished")
    assert page.locator(".segment .words").all_inner_texts() == ["One small <step>,", "one & all."]
    assert page.locator(".word").count() == 6
    assert page.locator("#title").inner_text() == "talk.wav"
    assert page.locator("#status").inner_text() == "talk.wav: Finished"
    (request,) = double.requests
    assert (request["model"], request["language"]) == ("second", "de")
    assert (request["name"], request["size"]) == ("talk.wav", str(tone.stat().st_size))
    assert (request["stream"], request["response_format"]) == ("true", "verbose_json")


def test_text_appears_while_it_is_written(page: Page, tone: Path, double: Double) -> None:
    send(page, tone.rename(tone.with_name("slow.wav")))
    page.locator("#text", has_text=TEXT[:17].strip()).wait_for()
    wait_for_state(page, "slow.wav", "Transcribing")
    assert page.locator("#text").inner_text().strip() == TEXT[:17].strip()
    assert page.locator("#actions").is_hidden()
    double.proceed.set()
    wait_for_state(page, "slow.wav", "Finished")


def test_several_files_wait_and_can_be_cancelled(page: Page, tone: Path, double: Double) -> None:
    slow, other = (Path(shutil.copy(tone, tone.with_name(n))) for n in ("slow.wav", "other.wav"))
    send(page, slow, other, tone)
    page.locator("#text", has_text="One small").wait_for()
    wait_for_state(page, "other.wav", "Waiting")
    page.get_by_role("button", name="Cancel other.wav").click()
    wait_for_state(page, "other.wav", "Cancelled")
    page.get_by_role("button", name="Cancel slow.wav").click()
    wait_for_state(page, "slow.wav", "Cancelled")
    wait_for_state(page, "talk.wav", "Finished")
    assert [request["name"] for request in double.requests] == ["slow.wav", "talk.wav"]
    page.get_by_role("button", name="Try again other.wav").click()
    wait_for_state(page, "other.wav", "Finished")
    page.get_by_role("button", name="Remove talk.wav").click()
    assert page.locator(".job-name").all_inner_texts() == ["slow.wav", "other.wav"]


def test_translation_is_one_request(page: Page, tone: Path, double: Double) -> None:
    page.select_option("#task", "translate")
    assert page.locator("#language").is_disabled()
    send(page, tone)
    wait_for_state(page, "talk.wav", "Finished")
    assert [request["task"] for request in double.requests] == ["translate"]
    assert page.locator("#text").inner_text().count("one & all.") == 1
    assert page.locator(".word").count() == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [("notes.wav", "file: this is no audio; send a recording"), ("halfway.wav", "decoder failed")],
)
def test_errors_say_what_the_server_said(page: Page, tone: Path, name: str, message: str) -> None:
    send(page, tone.rename(tone.with_name(name)))
    wait_for_state(page, name, message)
    assert message in page.locator("#status").inner_text()
    assert page.get_by_role("button", name=f"Try again {name}").is_visible()


def test_a_server_that_is_gone_is_an_error(page: Page, tone: Path) -> None:
    page.context.set_offline(True)
    send(page, tone)
    wait_for_state(page, "talk.wav", "The server does not answer")


def test_a_stream_that_breaks_keeps_its_text(page: Page, tone: Path, double: Double) -> None:
    send(page, tone.rename(tone.with_name("broken.wav")))
    page.locator(".segment").wait_for()
    double.proceed.set()
    wait_for_state(page, "broken.wav", "The connection ended before the transcript did")
    assert page.locator(".segment .words").all_inner_texts() == ["One small <step>,"]
    for format in ("txt", "srt"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {format}").click()
        saved = Path(download.value.path()).read_text(encoding="utf-8")
        assert saved == {"txt": "One small <step>,\n", "srt": SRT.split("2\n")[0]}[format]
    assert page.get_by_role("button", name="Download json").is_hidden()


def test_segments_can_be_played_before_the_last_one(page: Page, tone: Path, double: Double) -> None:
    send(page, tone.rename(tone.with_name("parts.wav")))
    page.locator(".word", has_text="<step>,").click()
    page.locator(".word.now", has_text="<step>,").wait_for()
    page.evaluate("document.querySelector('#player').pause()")
    page.evaluate("document.querySelector('.segment').dataset.mark = 'first'")
    wait_for_state(page, "parts.wav", "Transcribing")
    double.proceed.set()
    wait_for_state(page, "parts.wav", "Finished")
    assert page.locator(".word").count() == 6
    assert page.locator(".segment").first.get_attribute("data-mark") == "first"
    page.locator(".word", has_text="&").click()
    page.locator(".word.now", has_text="&").wait_for()


@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_warnings_of_the_server_are_shown(page: Page, tone: Path, task: str) -> None:
    page.select_option("#task", task)
    send(page, tone.rename(tone.with_name("damaged.wav")))
    wait_for_state(page, "damaged.wav", "Finished")
    assert page.locator("#warnings").inner_text() == "a packet is damaged\nit ends early"


def test_a_file_that_is_too_large_is_not_sent(page: Page, tone: Path, double: Double) -> None:
    large = tone.with_name("large.wav")
    large.write_bytes(bytes(1_500_000))
    send(page, large, tone)
    wait_for_state(page, "large.wav", "The file has 1.5 MB, but this server takes at most 1.0 MB")
    wait_for_state(page, "talk.wav", "Finished")
    assert [request["name"] for request in double.requests] == ["talk.wav"]


def test_a_file_that_is_gone_is_an_error(page: Page, tone: Path, double: Double) -> None:
    slow, other = (Path(shutil.copy(tone, tone.with_name(n))) for n in ("slow.wav", "other.wav"))
    send(page, slow, other)
    page.locator("#text", has_text="One small").wait_for()
    other.unlink()
    double.proceed.set()
    wait_for_state(page, "other.wav", "The browser cannot read this file any more")


def test_fast_text_is_drawn_once_a_frame(page: Page, tone: Path) -> None:
    """Or else an hour of text costs seconds."""
    page.evaluate(
        """() => {
          window.drawn = 0;
          new MutationObserver(() => (window.drawn += 1)).observe(
            document.querySelector("#text"), { childList: true });
        }"""
    )
    send(page, tone.rename(tone.with_name("long.wav")))
    wait_for_state(page, "long.wav", "Finished")
    assert 0 < page.evaluate("window.drawn") < N_DELTAS / 2


def test_text_from_right_to_left(page: Page, tone: Path) -> None:
    send(page, tone.rename(tone.with_name("arabic.wav")))
    wait_for_state(page, "arabic.wav", "Finished")
    assert page.locator("#text").get_attribute("lang") == "ar"
    line = page.locator(".segment .words")
    assert line.evaluate("line => getComputedStyle(line).direction") == "rtl"
    first, second = ARABIC.split()
    page.evaluate("document.querySelector('#player').currentTime = 0.1")
    page.locator(".word.now", has_text=first).wait_for()
    page.locator("#text").focus()
    page.keyboard.press("ArrowLeft")
    page.locator(".word.now", has_text=second).wait_for()


SRT = (
    "1\n00:00:00,000 --> 00:00:01,200\nOne small <step>,\n\n"
    "2\n00:00:01,200 --> 00:00:02,500\none & all.\n\n"
)
VTT = (
    "WEBVTT\n\n00:00.000 --> 00:01.200\nOne small &lt;step>,\n\n"
    "00:01.200 --> 00:02.500\none &amp; all.\n\n"
)


def test_downloads_and_copy(page: Page, tone: Path) -> None:
    send(page, tone)
    wait_for_state(page, "talk.wav", "Finished")
    files = {}
    for format in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {format}").click()
        assert download.value.suggested_filename == f"talk.{format}"
        files[format] = Path(download.value.path()).read_text(encoding="utf-8")
    assert files["txt"] == "One small <step>,\none & all.\n"
    assert (files["srt"], files["vtt"]) == (SRT, VTT)
    assert json.loads(files["json"])["text"] == TEXT
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "One small <step>,\none & all."


def test_words_light_up_and_can_be_clicked(page: Page, tone: Path) -> None:
    send(page, tone)
    wait_for_state(page, "talk.wav", "Finished")
    page.evaluate(
        """() => new Promise((resolve) => {
          const player = document.querySelector("#player");
          if (player.readyState > 0) resolve();
          else player.addEventListener("loadedmetadata", resolve, { once: true });
        })"""
    )
    page.locator(".word", has_text="all.").click()
    page.locator(".word.now", has_text="all.").wait_for()
    assert page.evaluate("document.querySelector('#player').currentTime") >= 1.8
    page.evaluate("document.querySelector('#player').pause()")
    page.locator("#text").focus()
    for expected in ("&", "one", "<step>,"):
        page.keyboard.press("ArrowLeft")
        page.locator(".word.now", has_text=expected).wait_for()
    page.get_by_role("button", name="Play from 0:00").click()
    assert page.evaluate("document.querySelector('#player').currentTime") < 0.8


def test_dropped_files_are_taken(page: Page) -> None:
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(100)], "dropped.mp3", { type: "audio/mpeg" }));
          for (const type of ["dragover", "drop"]) {
            document.querySelector("#drop").dispatchEvent(
              new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
          }
        }"""
    )
    wait_for_state(page, "dropped.mp3", "Finished")


def test_the_microphone_is_recorded(page: Page, double: Double) -> None:
    page.get_by_role("button", name="Record").click()
    page.get_by_text("Recording, 0:01").wait_for()
    page.get_by_role("button", name="Stop recording").click()
    wait_for_state(page, "recording-1.webm", "Finished")
    assert int(double.requests[0]["size"]) > 1000
    assert page.get_by_role("button", name="Record", exact=True).is_visible()
