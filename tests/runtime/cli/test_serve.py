"""`baldwhisper serve`: refusals, the address that it prints, and how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner, Result
from websockets.exceptions import ConnectionClosedOK

from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.cli.serve import _open
from tests.support.long_speech import repeat_speech

SPEECH = Path(__file__).parents[3] / "baldwhisper_mlx/assets/speech.flac"


def refused(*options: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["serve", *options], env=environment)


@pytest.mark.parametrize(("options", "message"), [
    (["--host", "0.0.0.0"], "--api-key"),
    (["--host", "::"], "--insecure"),
    (["--host", "192.0.2.1", "--port", "0"], "other machines"),
    (["--api-key", ""], "--api-key"),
    (["--api-key", "s\u00e9cret"], "ASCII"),
    (["--max-upload", "0"], "512MB"),
    (["--max-upload", "many"], "512MB"),
    (["--cors", "*"], "origin"),
    (["--cors", "https://example.org/page"], "without a path"),
    (["--max-queue", "-1"], "--max-queue"),
])  # fmt: skip
def test_wrong_options(options: list[str], message: str) -> None:
    result = refused(*options)
    assert result.exit_code == 2
    assert message in result.output


def test_what_cannot_be_served(model_folder: Path, tmp_path: Path) -> None:
    result = refused("--port", "0", "-m", str(tmp_path / "nothing"))
    assert result.exit_code == 1
    assert "nothing" in result.output
    result = refused("--port", "0", "-m", str(model_folder), "-m", str(model_folder))
    assert result.exit_code == 1
    assert "same name: tiny, tiny" in result.output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = refused("--port", str(port))
    assert result.exit_code == 1
    assert f"port {port}" in result.output
    assert "--port" in result.output


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "python_multipart", "websockets"])
def test_the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = refused("--port", "0")
    assert result.exit_code == 1
    assert f"{package}: pip install 'baldwhisper-mlx[server]'" in result.output


@contextmanager
def serving(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program, and the address that it prints; killed in the end, if it still runs."""
    code = "from baldwhisper_mlx.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", "0", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BALDWHISPER_API_KEY": "secret", "PYTHONUNBUFFERED": "1"} | environment,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://[\d.]+:\d+/v1", line)
            assert found is not None, line
            yield process, found[0]
        finally:
            process.kill()


def test_ctrl_c_finishes_the_request_in_hand() -> None:
    with serving() as (process, url):
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0, timeout=120)
        texts: list[str] = []
        stream = client.audio.transcriptions.create(
            file=("long.flac", SPEECH.read_bytes()), model="whisper-1", stream=True
        )
        process.send_signal(signal.SIGINT)  # the status has come, the text perhaps not
        reader = threading.Thread(
            target=lambda: texts.extend(
                event.text for event in stream if event.type == "transcript.text.done"
            )
        )
        reader.start()
        reader.join(60)
        assert texts
        assert texts[0]
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


def test_ctrl_c_closes_sessions() -> None:
    with serving() as (process, url):
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0, timeout=120)
        with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            assert connection.recv().type == "session.created"
            connection.input_audio_buffer.append(audio="AAAA" * 2**18)
            process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosedOK) as caught:
                connection.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")


def test_ctrl_c_when_idle() -> None:
    with serving() as (process, _):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The speech again and again, for an hour."""
    return repeat_speech(SPEECH, tmp_path_factory.mktemp("hour") / "hour.wav", 3600)


def first_event(url: str, path: Path) -> None:
    """Has a recording transcribed until its first text comes."""
    client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0, timeout=120)
    stream = client.audio.transcriptions.create(file=path, model="whisper-1", stream=True)
    assert next(iter(stream)).type == "transcript.text.delta"
    threading.Thread(target=lambda: _drain(stream), daemon=True).start()


def _drain(stream: Any) -> None:
    with contextlib.suppress(Exception):
        for _ in stream:
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(hour: Path, number: int) -> None:
    with serving() as (process, url):
        first_event(url, hour)
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):  # it would take minutes
            process.wait(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, "")


def test_sigterm_finishes_the_request_in_hand() -> None:
    with serving() as (process, url):
        client = openai.OpenAI(base_url=url, api_key="secret", max_retries=0, timeout=120)
        stream = client.audio.transcriptions.create(file=SPEECH, model="whisper-1", stream=True)
        process.send_signal(signal.SIGTERM)
        events = list(stream)
        assert events[-1].type == "transcript.text.done"
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


def test_open_opens_the_page_of_a_server_that_answers(tmp_path: Path) -> None:
    """The browser is a script that fetches the page."""
    browser = tmp_path / "browser.py"
    browser.write_text(
        "import sys, urllib.request, pathlib\n"
        "body = urllib.request.urlopen(sys.argv[1], timeout=60).read()\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).write_bytes(body)\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).rename({str(tmp_path / 'page.html')!r})\n"
    )
    with serving("--open", BROWSER=f"{sys.executable} {browser} %s") as (process, url):
        assert process.stdout is not None
        assert process.stdout.readline() == f"Page: {url.removesuffix('v1')}\n"
        deadline = time.monotonic() + 60
        while not (tmp_path / "page.html").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "<title>BaldWhisper" in (tmp_path / "page.html").read_text(encoding="utf-8")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("failure", [False, OSError("gone"), webbrowser.Error("none")])
def test_no_browser_is_no_error(
    failure: bool | Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_url: str) -> bool:
        if isinstance(failure, Exception):
            raise failure
        return failure

    monkeypatch.setattr(webbrowser, "open", fail)
    _open("http://localhost:1/")
    assert capsys.readouterr().err == (
        "--open: no browser was found; open http://localhost:1/ yourself\n"
    )
