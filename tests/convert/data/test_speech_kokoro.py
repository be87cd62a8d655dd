"""The Kokoro engine of scripts/make_speech.py, with fakes of kokoro-onnx and ONNX Runtime."""

from __future__ import annotations

import argparse
import functools
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

# scripts are run by path, so they import their helpers as top-level modules
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import make_speech
import speech_engines as engines
import speech_kokoro as kokoro
import speech_runs as runs

from baldwhisper_mlx.config import SAMPLE_RATE

NAMES = ("af_heart", "am_puck", "bf_lily", "bf_emma", "ff_siwis", "zm_yunxi")
ENGLISH = ["af_heart", "am_puck", "bf_lily"]
SOURCE_RATE = 24_000


def tone(seconds: float) -> np.ndarray:
    """A tone of 1 kHz at Kokoro's own rate."""
    times = np.arange(round(seconds * SOURCE_RATE)) / SOURCE_RATE
    return (0.3 * np.sin(2 * np.pi * 1000 * times)).astype(np.float32)


class FakeKokoro:
    """Speaks fifteen characters a second at speed 1, and notes what it is called with."""

    def __init__(self, session: Any, voices_path: str) -> None:
        np.load(voices_path)  # the real one reads it
        self.session = session
        self.calls: list[dict[str, Any]] = []

    def create(self, text: str, **settings: Any) -> tuple[np.ndarray, int]:
        self.calls.append({"text": text, **settings})
        if "unspeakable" in text:
            raise ValueError("produced no phonemes")
        return tone(len(text) / 15 / settings["speed"]), SOURCE_RATE


class FakeSession:
    """Has the inputs that the file lists; like the real one it fails if that is no model."""

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        self.options = options
        self.inputs = json.loads(Path(path).read_text("utf-8"))

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self.inputs]


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = ModuleType("kokoro_onnx")
    package.Kokoro = SimpleNamespace(from_session=FakeKokoro)  # type: ignore[attr-defined]
    runtime = ModuleType("onnxruntime")
    runtime.SessionOptions = SimpleNamespace  # type: ignore[attr-defined]
    runtime.InferenceSession = FakeSession  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kokoro_onnx", package)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    kokoro.load_kokoro.cache_clear()
    kokoro._voice.cache_clear()
    yield
    kokoro.load_kokoro.cache_clear()
    kokoro._voice.cache_clear()


@pytest.fixture
def engine(tmp_path: Path) -> kokoro.Kokoro:
    """A model file and voices; the style of a voice with n phonemes is n + 1000 times its place."""
    folder = tmp_path / "voices"
    folder.mkdir()
    for place, name in enumerate(NAMES):
        rows = np.arange(4, dtype="<f4") + 1000 * place
        (folder / f"{name}.bin").write_bytes(np.repeat(rows, kokoro.STYLE_SIZE).tobytes())
    model = tmp_path / "model.onnx"
    model.write_text('["input_ids", "style", "speed"]', "utf-8")
    return kokoro.Kokoro(model, folder)


def command_line(
    monkeypatch: pytest.MonkeyPatch, engine: kokoro.Kokoro, *more: str
) -> argparse.Namespace:
    files = ["--kokoro-model", str(engine.model), "--kokoro-voices", str(engine.folder)]
    fixed = ["make_speech", "--texts", "t", "--output", "o", "--hours", "1", "--engines", "kokoro"]
    monkeypatch.setattr(sys, "argv", [*fixed, *files, *more])
    return make_speech._arguments()


def test_a_sentence_is_resampled_at_its_speed(engine: kokoro.Kokoro) -> None:
    audio = engine("x" * 30, engines.VoiceSetting("kokoro", "bf_lily", 1.25))
    call = kokoro.load_kokoro(engine.model).calls[-1]
    assert call["speed"] == pytest.approx(0.8)
    assert call["lang"] == "en-gb"
    assert call["voice"].dtype == np.float32
    np.testing.assert_array_equal(call["voice"][:, 0, 0], 2000 + np.arange(4))
    assert audio.dtype == np.float32
    assert len(audio) == pytest.approx(2.5 * SAMPLE_RATE, abs=2)
    peak_hz = int(np.argmax(np.abs(np.fft.rfft(audio)))) * SAMPLE_RATE / len(audio)
    assert peak_hz == pytest.approx(1000, abs=1)


@pytest.mark.parametrize(("share", "accent"), [(0.75, "en-us"), (0.25, "en-gb")])
def test_a_mixture_is_the_weighted_mean_with_the_larger_share_s_accent(
    engine: kokoro.Kokoro, share: float, accent: str
) -> None:
    engine("A sentence.", engines.VoiceSetting("kokoro", "am_puck+bf_lily", 1.0, share))
    call = kokoro.load_kokoro(engine.model).calls[-1]
    expected = share * 1000 + (1 - share) * 2000 + np.arange(4)
    assert call["voice"].shape == (4, 1, kokoro.STYLE_SIZE)
    np.testing.assert_allclose(call["voice"][:, 0, 7], expected, rtol=1e-6)
    assert call["lang"] == accent


def test_one_thread_and_one_load(engine: kokoro.Kokoro) -> None:
    engine("One.", engines.VoiceSetting("kokoro", "af_heart", 1.0))
    engine("Two.", engines.VoiceSetting("kokoro", "af_heart", 1.0))
    loaded = kokoro.load_kokoro(engine.model)
    assert [call["text"] for call in loaded.calls] == ["One.", "Two."]
    assert vars(loaded.session.options) == {"intra_op_num_threads": 1, "inter_op_num_threads": 1}


def test_english_voices_without_the_unclear_ones(
    engine: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges, _, _ = make_speech.choose_voices(command_line(monkeypatch, engine))
    pairs = ["af_heart+am_puck", "af_heart+bf_lily", "am_puck+bf_lily"]
    assert [voice.name for voice in ranges] == ENGLISH + pairs
    assert sum(voice.weight for voice in ranges) == pytest.approx(1.0)
    assert sum(v.weight for v in ranges if "+" in v.name) == pytest.approx(kokoro.MIXTURES)
    ranges, _, _ = make_speech.choose_voices(command_line(monkeypatch, engine, "--kokoro-skip"))
    assert "bf_emma" in {voice.name for voice in ranges}
    one = command_line(monkeypatch, engine, "--kokoro-skip", "af_heart", "am_puck", "bf_emma")
    ranges, _, _ = make_speech.choose_voices(one)
    assert [(voice.name, voice.weight) for voice in ranges] == [("bf_lily", 1.0)]


def test_french_by_the_french_voice_and_its_mixtures(
    engine: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = command_line(monkeypatch, engine, "--language", "fr")
    ranges, speak, settings = make_speech.choose_voices(arguments)
    assert [voice.name for voice in ranges] == ["ff_siwis", *(f"ff_siwis+{n}" for n in ENGLISH)]
    assert sum(voice.weight for voice in ranges) == pytest.approx(1.0)
    drawn = [engines.draw_voice(ranges, np.random.default_rng(seed)) for seed in range(200)]
    shares = [voice.pitch for voice in drawn if voice.pitch is not None]
    assert kokoro.FRENCH_SHARE[0] <= min(shares) < max(shares) <= kokoro.FRENCH_SHARE[1]
    for name, share in (("ff_siwis", None), ("ff_siwis+bf_lily", 0.5)):
        speak("Bonjour à tous.", engines.VoiceSetting("kokoro", name, 1.0, share))
        assert kokoro.load_kokoro(engine.model).calls[-1]["lang"] == "fr-fr"
    # Part of what a resumed folder is checked by.
    (engine.folder / "ff_siwis.bin").write_bytes(bytes(4 * kokoro.STYLE_SIZE))
    kokoro._voice.cache_clear()
    assert make_speech.choose_voices(arguments)[2]["kokoro"] != settings["kokoro"]


def test_shares_and_rates_are_drawn_from_the_seed() -> None:
    ranges = kokoro.voice_ranges(ENGLISH)
    drawn = [engines.draw_voice(ranges, np.random.default_rng(seed)) for seed in range(400)]
    assert drawn == [engines.draw_voice(ranges, np.random.default_rng(n)) for n in range(400)]
    mixed = [voice for voice in drawn if "+" in voice.name]
    assert len(mixed) / 400 == pytest.approx(kokoro.MIXTURES, abs=0.07)
    assert all(voice.pitch is None for voice in drawn if "+" not in voice.name)
    shares = [voice.pitch for voice in mixed if voice.pitch is not None]
    assert kokoro.SHARE[0] <= min(shares) < 0.25
    assert 0.75 < max(shares) <= kokoro.SHARE[1]
    assert 0.8 <= min(v.rate for v in drawn) < 0.82 < 1.18 < max(v.rate for v in drawn) <= 1.2


def test_a_run_has_the_speaker_s_name_and_lists_what_failed(
    engine: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    voices, speak, _ = make_speech.choose_voices(command_line(monkeypatch, engine))
    # processes get a copy of it
    speak = pickle.loads(pickle.dumps(speak))
    texts = ["This is the first of them.", "This one is unspeakable.", "And this is the last."]
    sentences = [runs.Sentence(t, "book", "CC0", "book/1", i) for i, t in enumerate(texts)]
    rows, skipped = runs.make_run(runs.Run(3, tuple(sentences)), tmp_path, 1, voices, speak)
    assert [row["position"] for row in rows] == [0, 2]
    assert [row["reason"] for row in skipped] == ["produced no phonemes"]
    for row in rows:
        assert row["speaker"] == f"kokoro-{row['voice']['name']}"
        assert soundfile.info(tmp_path / row["file_name"]).samplerate == SAMPLE_RATE


def test_a_folder_is_not_continued_with_other_voices_or_another_model(
    engine: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = command_line(monkeypatch, engine)
    make_speech.check_settings(tmp_path, make_speech.choose_voices(arguments)[2])
    make_speech.check_settings(tmp_path, make_speech.choose_voices(arguments)[2])
    (engine.folder / "af_heart.bin").write_bytes(bytes(4 * kokoro.STYLE_SIZE))
    kokoro._voice.cache_clear()
    with pytest.raises(ValueError, match="made with other kokoro"):
        make_speech.check_settings(tmp_path, make_speech.choose_voices(arguments)[2])


def test_settings_of_other_engines_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that were started without Kokoro can be continued."""
    monkeypatch.setattr(make_speech, "check_engines", lambda chosen: None)
    line = ["make_speech", "--texts", "t", "--output", "o", "--hours", "1", "--engines", "flite"]
    monkeypatch.setattr(sys, "argv", line)
    voices, speak, settings = make_speech.choose_voices(make_speech._arguments())
    assert settings == {"seed": 0, "voices": [repr(voice) for voice in voices]}
    assert {voice.engine for voice in voices} == {"flite"}
    assert isinstance(speak, functools.partial)


def test_missing_packages_are_named_with_the_command(
    engine: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    with pytest.raises(RuntimeError, match="pip install kokoro-onnx"):
        make_speech.choose_voices(command_line(monkeypatch, engine))


def test_bad_files_are_named(engine: kokoro.Kokoro, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(match: str, *more: str) -> None:
        kokoro.load_kokoro.cache_clear()
        kokoro._voice.cache_clear()
        with pytest.raises((ValueError, OSError), match=match):
            make_speech.choose_voices(command_line(monkeypatch, engine, *more))

    refused("--kokoro-skip af_hart: no such English voice in .*voices", "--kokoro-skip", "af_hart")
    refused("no English voices", "--kokoro-voices", str(engine.model.parent))
    refused(r"none\.onnx: not found", "--kokoro-model", "none.onnx")
    engine.model.write_text("[", "utf-8")
    refused(r"model\.onnx: not an ONNX model")
    engine.model.write_text('["mel"]', "utf-8")
    refused(r"model\.onnx: not Kokoro-82M; its inputs are mel")
    engine.model.write_text('["tokens", "style", "speed"]', "utf-8")
    voice = engine.folder / "am_puck.bin"
    voice.write_bytes(voice.read_bytes()[:-4])
    refused(r"am_puck\.bin: 4092 bytes are not vectors of 256 float32")
    voice.write_bytes(np.full(kokoro.STYLE_SIZE, np.nan, "<f4").tobytes())
    refused(r"am_puck\.bin: has values that are not finite")


def test_both_options_are_needed(tmp_path: Path) -> None:
    line = ["make_speech", "--texts", "t", "--output", str(tmp_path / "o"), "--hours", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*line, "--engines", "kokoro", "--kokoro-model", "m.onnx"])
        with pytest.raises(SystemExit, match="needs --kokoro-model and --kokoro-voices"):
            make_speech.main()
    assert not (tmp_path / "o").exists()
