"""Speech to prepared windows with a tiny teacher: contents, passes, bad input, resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data import labels, prepare
from baldwhisper_convert.data.audio_list import AUDIO_FILE
from baldwhisper_convert.data.augment import Augmentation
from baldwhisper_convert.data.features import log_mel
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import (
    FEATURES_FILE,
    SETTINGS_FILE,
    SILENCE,
    SPEECH,
    WINDOWS_FILE,
    Prepared,
)
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from baldwhisper_convert.data.utterances import BadRows, Utterance, read_utterances
from baldwhisper_convert.data.windows import WindowSettings, join, plan_windows
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from tests.support.tiny_speech import tiny_prompts, tiny_speech, tiny_teacher, tiny_utterance

PROMPTS = tiny_prompts()
BEGIN = PROMPTS.tokenizer.timestamp_begin
FILLED = WindowSettings(single=0.0, silence=0.0, pause=0.3, full=0.0)


@pytest.fixture(scope="module")
def teacher() -> Checkpoint:
    return tiny_teacher()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Ten utterances of three speakers, 1 to 12 s: three windows if they are filled."""
    folder = tiny_speech(tmp_path_factory.mktemp("speech"), 10, seconds=(1, 12))
    return list(read_utterances(str(folder)))


def run(teacher: Checkpoint, speech: Sequence[Utterance], folder: Path, **options: Any) -> Prepared:
    """`prepare` with plain windows unless options say otherwise."""
    bad = options.pop("bad", None)
    batch_size = options.pop("batch_size", 3)
    settings = PrepareSettings(**({"windows": FILLED} | options))
    return prepare.prepare(teacher, speech, settings, folder, bad=bad, batch_size=batch_size)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hearing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A teacher whose output depends on its encoder states; counts the windows it decodes."""
    decoded: list[int] = []

    def decode(
        model: Whisper, states: torch.Tensor, mask: None, prompts: Prompts, *, timestamps: bool
    ) -> list[list[int]]:
        decoded.append(len(states))
        words = [int(1e4 * float(row.abs().mean())) % 200 for row in states]
        return [[BEGIN, word, word + 1, BEGIN + 51, BEGIN + 60, 5, BEGIN + 90] for word in words]

    monkeypatch.setattr(labels, "decode_greedy", decode)
    return decoded


@pytest.mark.parametrize("features", ["states", "mel"])
def test_windows_hold_what_the_plan_says(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path, features: str
) -> None:
    from transformers import WhisperFeatureExtractor

    how = WindowSettings(single=0.3, silence=0.0, full=0.5, margin=0.25)
    data = run(teacher, speech, tmp_path / "data", features=features, windows=how, seed=5)
    plan = plan_windows([u.seconds() for u in speech], [u.group for u in speech], how, seed=5)
    assert len(data) == len(plan)
    assert {w.full for w in plan} == {True, False}
    extract, model = WhisperFeatureExtractor(), Whisper.from_checkpoint(teacher)
    for number, (window, planned) in enumerate(zip(data.windows, plan, strict=True)):
        items = [speech[item.utterance] for item in planned.items]
        audio = join(planned, [item.samples() for item in items])
        mel = extract(audio, sampling_rate=16_000, return_tensors="pt")["input_features"]
        mel[:, :, len(audio) // 160 :] = 0
        positions = math.ceil((len(audio) / 16_000 + 0.25) * 50)
        assert window.positions == (1500 if planned.full else min(1500, positions))
        if features == "mel":
            expected = mel[0, :, : 2 * window.positions]
        else:
            with torch.no_grad():
                expected = model.encoder(mel)[0, : window.positions]
        torch.testing.assert_close(data.features(number), expected, atol=2e-3, rtol=2e-3)
        assert (window.kind, window.number) == (SPEECH, number)
        assert window.text == " ".join(item.text for item in items)
        assert window.source == items[0].name
        assert window.duration == pytest.approx(len(audio) / 16_000, abs=1e-3)
        tokens = [token for token in window.tokens if token < BEGIN]
        assert PROMPTS.tokenizer.decode(tokens) == f" {window.text}"
        stamps = [token - BEGIN for token in window.tokens if token >= BEGIN]
        times = [time for item in planned.items for time in (item.start, item.end)]
        np.testing.assert_allclose(np.array(stamps) * 0.02, times, atol=0.0101)
        before = planned.follows
        said = data.windows[before].tokens if before is not None else ()
        assert window.prompt == tuple(token for token in said if token < BEGIN)
    assert any(window.prompt for window in data.windows)


def test_silence(teacher: Checkpoint, speech: list[Utterance], tmp_path: Path) -> None:
    how = dataclasses.replace(FILLED, silence=1.0)
    data = run(teacher, speech[:2], tmp_path / "data", windows=how)
    kinds = [window.kind for window in data.windows]
    assert kinds == [SPEECH, SILENCE]
    silent = data.windows[1]
    assert (silent.tokens, silent.prompt, silent.text, silent.positions) == ((), (), "", 1500)
    assert silent.source == SILENCE


@pytest.mark.parametrize(("features_left", "lines_left"), [(0.55, 1.0), (1.0, 0.4), (0.8, 0.85)])
def test_a_killed_run_ends_as_one_that_was_not(
    teacher: Checkpoint,
    speech: list[Utterance],
    tmp_path: Path,
    hearing: list[int],
    monkeypatch: pytest.MonkeyPatch,
    features_left: float,
    lines_left: float,
) -> None:
    """Killed in the middle of a batch, files cut anywhere; two passes, the teacher's labels."""
    options: dict[str, Any] = {"labels": "teacher", "max_wer": 9.0, "passes": 2, "batch_size": 4}
    whole = run(teacher, speech, tmp_path / "whole", **options)
    assert len(whole) == 6
    add = PreparedWriter.add

    def killed(self: PreparedWriter, *arguments: Any) -> None:
        if self.count == 5:
            raise KeyboardInterrupt
        add(self, *arguments)

    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(PreparedWriter, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            run(teacher, speech, folder, **options)
    for name, left in ((FEATURES_FILE, features_left), (WINDOWS_FILE, lines_left)):
        written = (folder / name).read_bytes()
        (folder / name).write_bytes(written[: round(left * len(written))])
    with pytest.raises(ValueError, match="unfinished"):
        Prepared(folder)
    run(teacher, speech, folder, **options)
    assert content(folder) == content(tmp_path / "whole")
    # What is decoded together is the same, too: real logits are rounded by the batch.
    assert set(hearing) == {3}


def test_complete_data_is_not_made_again(
    teacher: Checkpoint,
    speech: list[Utterance],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(teacher, speech[:2], tmp_path / "data")
    before = content(tmp_path / "data")

    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(prepare._WindowBuilder, "build", never)
    assert len(run(teacher, speech[:2], tmp_path / "data")) == 1
    assert content(tmp_path / "data") == before


def test_other_settings_data_or_teachers_are_refused(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    run(teacher, speech[:2], folder)
    reworded = [dataclasses.replace(speech[0], text="another"), speech[1]]
    other = tiny_teacher(state={name: 2 * t for name, t in teacher.state.items()})
    attempts: list[tuple[Checkpoint, list[Utterance], dict[str, Any]]] = [
        (teacher, speech[:2], {"seed": 1}),
        (teacher, speech[:2], {"windows": WindowSettings()}),
        (teacher, speech[:2], {"augmentation": Augmentation(noise=0.9)}),
        (teacher, speech[:3], {}),
        (teacher, reworded, {}),
        (other, speech[:2], {}),
    ]
    for checkpoint, utterances, options in attempts:
        with pytest.raises(FileExistsError, match="made with other settings"):
            run(checkpoint, utterances, folder, **options)


def test_foreign_folders_are_refused(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("dear to somebody")
    with pytest.raises(FileExistsError, match="not prepared data"):
        run(teacher, speech[:1], tmp_path)


FASTER = Augmentation(speed=1.0, fastest=1.5, room=0.0, noise=0.0)


def test_later_passes_have_windows_of_their_own(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    how = dataclasses.replace(FILLED, single=1.0)
    options = {"passes": 2, "augmentation": FASTER, "windows": how}
    data = run(teacher, speech[:6], tmp_path / "data", **options)
    count = len(data) // 2
    assert count == 6
    first, second = data.windows[:count], data.windows[count:]
    assert [w.number for w in data.windows] == list(range(2 * count))
    assert " ".join(w.text for w in first) == " ".join(w.text for w in second)
    assert sum(w.duration for w in second) < sum(w.duration for w in first)
    for window in second:
        last = (window.tokens[-1] - BEGIN) * 0.02
        assert last == pytest.approx(window.duration, abs=0.011)
    for before, window in pairwise(second):
        said = tuple(token for token in before.tokens if token < BEGIN)
        assert window.prompt == (() if window.number == count + 4 else said)


def test_later_passes_repeat_the_teachers_labels(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path, hearing: list[int]
) -> None:
    """Also of windows in the same batch; their times are those of the faster speech."""
    options = {"labels": "teacher", "max_wer": 9.0, "passes": 3, "batch_size": 5}
    data = run(teacher, speech, tmp_path / "data", augmentation=FASTER, **options)
    count = len(data) // 3
    assert count < 5
    assert sum(hearing) == count
    for later in data.windows[count:]:
        first = data.windows[later.number % count]
        speed = first.duration / later.duration
        assert 1 < speed <= 1.5
        assert later.text == first.text
        for label, again in zip(first.tokens, later.tokens, strict=True):
            if label < BEGIN:
                assert again == label
            else:
                assert again - BEGIN == pytest.approx((label - BEGIN) / speed, abs=0.51)


def test_labels_too_far_from_the_transcript_are_left_out(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path, hearing: list[int]
) -> None:
    data = run(teacher, speech, tmp_path / "data", labels="teacher", max_wer=0.0)
    assert len(data) == 0
    assert data.settings["report"]["dropped"] == 3
    assert sum(hearing) == 3


@pytest.mark.filterwarnings("ignore::baldwhisper_convert.data.suppressed.SuppressedLabelWarning")
def test_windows_with_too_much_text_are_left_out(teacher: Checkpoint, tmp_path: Path) -> None:
    words = " ".join(["7"] * 90)
    speech = [tiny_utterance(tmp_path / f"{i}.wav", text=words, seed=i) for i in range(5)]
    together = run(teacher, speech[:3], tmp_path / "together")
    assert (len(together), together.settings["report"]["dropped"]) == (0, 1)
    alone = run(teacher, speech, tmp_path / "alone", windows=WindowSettings(single=1, silence=0))
    assert (len(alone), alone.settings["report"]["dropped"]) == (5, 0)


def bad_utterances(folder: Path) -> dict[str, Utterance]:
    """An utterance of each bad kind, by what is said about it."""
    folder.mkdir()
    (folder / "text.wav").write_text("this is no audio")
    soundfile.write(folder / "empty.wav", np.zeros(0, np.float32), 16_000)
    cut = tiny_utterance(folder / "cut.wav")
    content = Path(cut.name).read_bytes()
    (folder / "cut.wav").write_bytes(content[: len(content) // 2])
    path = str(folder / "text.wav")
    return {
        "unreadable audio": Utterance(path, path, "x"),
        "unreadable audio: missing": Utterance("gone", str(folder / "gone.wav"), "x"),
        "unreadable audio: empty": Utterance("e", str(folder / "empty.wav"), "x"),
        "unreadable audio: cut off": cut,
        "unreadable audio: bytes": Utterance("set[7]", b"nothing", "x"),
        "not between 0 and 30 s": tiny_utterance(folder / "long.wav", 30.2),
        "a text longer than the context": tiny_utterance(
            folder / "wordy.wav", text=" ".join(["7"] * 200)
        ),
    }


KINDS = [
    "unreadable audio",
    "unreadable audio: missing",
    "unreadable audio: empty",
    "unreadable audio: cut off",
    "unreadable audio: bytes",
    "not between 0 and 30 s",
    "a text longer than the context",
]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_utterances(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path, kind: str
) -> None:
    utterance = bad_utterances(tmp_path / "bad")[kind]
    reason = kind.partition(":")[0]
    file = Path(utterance.audio).name if isinstance(utterance.audio, str) else utterance.name
    both = [utterance, speech[0]]
    with pytest.raises(ValueError, match=reason) as error:
        run(teacher, both, tmp_path / "strict")
    assert file in str(error.value)
    assert "--skip-bad" in str(error.value)
    bad = BadRows(allowed=True)
    how = WindowSettings(single=1.0, silence=0.0)
    data = run(teacher, both, tmp_path / "data", windows=how, bad=bad)
    assert [window.text for window in data.windows] == [speech[0].text]
    assert [count for key, count in bad.counts.items() if reason in key] == [1]
    report = data.settings["report"]
    assert reason in report["bad"]
    assert file in report["bad"]


def test_bad_utterances_are_counted_by_reason(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    bad = BadRows(allowed=True)
    found = bad_utterances(tmp_path / "bad")
    assert list(found) == KINDS
    run(teacher, [*found.values(), *speech[:2]], tmp_path / "data", bad=bad)
    assert sorted(bad.counts.values()) == [1, 1, 5]


def test_nothing_to_prepare(teacher: Checkpoint, tmp_path: Path) -> None:
    utterance = bad_utterances(tmp_path / "bad")["not between 0 and 30 s"]
    with pytest.raises(ValueError, match=r"no usable speech.*; bad utterances: 1 not between"):
        run(teacher, [utterance], tmp_path / "data", bad=BadRows(allowed=True))
    with pytest.raises(ValueError, match="no usable speech to prepare; bad utterances: none"):
        run(teacher, [], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_audio_as_bytes(teacher: Checkpoint, tmp_path: Path) -> None:
    utterance = tiny_utterance(tmp_path / "a.wav", 1.5)
    content = Utterance("a.wav", Path(utterance.name).read_bytes(), utterance.text)
    by_path = run(teacher, [utterance], tmp_path / "path")
    by_content = run(teacher, [content], tmp_path / "content")
    assert torch.equal(by_path.features(0), by_content.features(0))
    assert 1.5 <= by_path.windows[0].duration <= 1.8


@pytest.mark.parametrize(
    "change", [{"labels": "both"}, {"features": "wav"}, {"passes": 0}, {"max_wer": -0.1}]
)
def test_settings_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        PrepareSettings(**change)


def test_the_language_must_be_known(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="unknown language 'klingon'"):
        run(teacher, speech[:1], tmp_path / "data", language="klingon")
    assert run(teacher, speech[:1], tmp_path / "fr", language="French").language == "fr"


def test_log_mel_ends_in_zeros_or_in_silence() -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor()
    samples = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    zeros, silent = (log_mel([samples], extractor, silence=s)[0] for s in (False, True))
    plain = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_features"][0]
    assert zeros.shape == silent.shape == plain.shape == (80, 3000)
    torch.testing.assert_close(silent, plain, atol=1e-3, rtol=0)
    assert torch.equal(zeros[:, :100], silent[:, :100])
    assert not zeros[:, 100:].any()
    assert (silent[:, 110:] < -0.1).all()


def test_replaced_audio_is_noticed_and_moved_audio_is_not(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    """Names, texts and lengths stay the same when recordings are cleaned or levelled anew."""
    first = run(teacher, speech, tmp_path / "data")
    moved = []
    for utterance in speech:
        assert isinstance(utterance.audio, str)
        path = tmp_path / Path(utterance.audio).name
        path.write_bytes(Path(utterance.audio).read_bytes())
        moved.append(dataclasses.replace(utterance, name=str(path), audio=str(path)))
    again = run(teacher, moved, tmp_path / "data")
    assert again.fingerprint == first.fingerprint
    samples, rate = soundfile.read(moved[4].audio)
    soundfile.write(moved[4].audio, 0.5 * samples, rate)
    with pytest.raises(
        FileExistsError, match=rf"made from other audio; {re.escape(moved[4].name)} has been rep"
    ):
        run(teacher, moved, tmp_path / "data")
    samples, rate = soundfile.read(moved[2].audio)
    soundfile.write(moved[2].audio, 0.5 * samples, rate)
    with pytest.raises(
        FileExistsError, match=rf"other audio; {re.escape(moved[2].name)} and 1 others have been"
    ):
        run(teacher, moved, tmp_path / "data")
    (tmp_path / "data" / AUDIO_FILE).unlink()  # as in data of earlier versions
    with pytest.raises(FileExistsError, match="files of the same names have been replaced since"):
        run(teacher, moved, tmp_path / "data")
    assert run(teacher, moved, tmp_path / "new").fingerprint != first.fingerprint


def test_data_of_earlier_versions_is_used_still(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    """It does not say which audio it was made from."""
    data = run(teacher, speech, tmp_path)
    stored = json.loads((tmp_path / SETTINGS_FILE).read_text())
    assert stored.pop("audio")
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(stored))
    again = run(teacher, speech, tmp_path)
    assert again.windows == data.windows
    assert again.fingerprint == data.fingerprint.rpartition("/")[0]


def noise_folder(folder: Path, seed: int = 0) -> Path:
    """A folder with a recording of a tone."""
    folder.mkdir()
    tiny_utterance(folder / "hum.wav", 0.5, seed=seed)
    return folder


def test_recorded_noise_counts_and_not_its_place(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    def make(name: str, recordings: Path | None) -> Prepared:
        noisy = Augmentation(
            speed=0.0, room=0.0, noise=1.0, recordings=str(recordings) if recordings else ""
        )
        how = dataclasses.replace(FILLED, silence=0.5)
        return run(
            teacher, speech[:4], tmp_path / name, augmentation=noisy, passes=2, features="mel",
            windows=how,
        )  # fmt: skip

    one = make("one", noise_folder(tmp_path / "noise"))
    moved = make("moved", noise_folder(tmp_path / "elsewhere"))
    other = make("other", noise_folder(tmp_path / "louder", seed=1))
    none = make("none", None)
    assert one.fingerprint == moved.fingerprint
    assert content(one.folder)["features.f16"] == content(moved.folder)["features.f16"]
    assert len({one.fingerprint, other.fingerprint, none.fingerprint}) == 3
    assert content(one.folder)["features.f16"] != content(none.folder)["features.f16"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_noise_is_an_error(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path, exists: bool
) -> None:
    folder = tmp_path / "noise"
    if exists:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"augmentation\.recordings.*noise"):
        run(
            teacher,
            speech[:1],
            tmp_path / "data",
            augmentation=Augmentation(recordings=str(folder)),
        )


def test_silence_has_any_length_in_a_dynamic_context(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    how = WindowSettings(single=1.0, silence=1.0, pause=0.0, full=0.0)
    options = {"windows": how, "features": "mel", "audio_context": "dynamic"}
    data = run(teacher, speech[:8], tmp_path / "data", **options)
    silent = [window for window in data.windows if window.kind == SILENCE]
    assert len({window.positions for window in silent}) > 3
    assert all(window.positions >= 50 * window.duration for window in silent)


def test_no_text_column_needs_a_teacher_or_no_labels() -> None:
    assert PrepareSettings(labels="teacher").text_from("") is None
    assert PrepareSettings(labels="teacher").text_from("text") == "text"
    assert PrepareSettings(labels="none").text_from("") is None
    with pytest.raises(ValueError, match='set labels to "teacher" or "none"'):
        PrepareSettings().text_from("")
