"""Preparing in pieces: the same bytes as in one process, whoever is killed wherever."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data import labels, pieces, prepare
from baldwhisper_convert.data.augment import Augmentation
from baldwhisper_convert.data.pieces import PIECES_FOLDER, Shard, cut
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import WINDOWS_FILE, Prepared, read_settings
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from baldwhisper_convert.data.utterances import BadRows, Utterance, read_utterances
from baldwhisper_convert.data.windows import Planned, Window, WindowSettings
from baldwhisper_convert.locks import lock_folder
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.prepared_data import prepare_data
from tests.support.tiny_speech import tiny_prompts, tiny_speech, tiny_teacher

BEGIN = tiny_prompts().tokenizer.timestamp_begin
BATCH = 2


class Killed(BaseException):
    """Stands for a signal that ends the process."""


@pytest.fixture(scope="module")
def teacher() -> Checkpoint:
    return tiny_teacher()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Short utterances of three speakers; the audio of two cannot be decoded to its end."""
    folder = tiny_speech(tmp_path_factory.mktemp("speech"), 11, seconds=(0.3, 0.9))
    for name in ("004.wav", "009.wav"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    return list(read_utterances(str(folder)))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch a piece; a teacher whose output follows the audio, and is dropped at times."""

    def decode(
        model: Whisper, states: torch.Tensor, mask: None, prompts: Prompts, *, timestamps: bool
    ) -> list[list[int]]:
        words = [int(1e4 * float(row.abs().mean())) % 200 for row in states]
        ends = [0 if word % 5 == 0 else 300 for word in words]
        return [[BEGIN, word, BEGIN + 9][: end or 1] for word, end in zip(words, ends, strict=True)]

    monkeypatch.setattr(labels, "decode_greedy", decode)
    monkeypatch.setattr(pieces, "PIECE_BATCHES", 1)
    monkeypatch.setattr(pieces, "WAIT", 0.2)


TEACHER: dict[str, Any] = {
    "labels": "teacher",
    "max_wer": 9.0,
    "passes": 2,
    "augmentation": Augmentation(speed=1.0),
}
TEXT: dict[str, Any] = {"passes": 2, "features": "mel"}


def settings(**options: Any) -> PrepareSettings:
    how = WindowSettings(single=1.0, silence=0.2, pause=0.1, full=0.0)
    return PrepareSettings(**({"windows": how} | options))


def whole(
    teacher: Checkpoint, speech: Sequence[Utterance], folder: Path, **options: Any
) -> Prepared:
    bad = BadRows(allowed=True)
    return prepare.prepare(teacher, speech, settings(**options), folder, bad=bad, batch_size=BATCH)


def part(
    teacher: Checkpoint, speech: Sequence[Utterance], folder: Path, shard: str, **options: Any
) -> None:
    bad = BadRows(allowed=True)
    prepare.prepare_shard(
        teacher, speech, settings(**options), folder, Shard.parse(shard), bad=bad, batch_size=BATCH
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("options", [TEACHER, TEXT])
@pytest.mark.parametrize("order", ["2/3 1/3 3/3", "4/4 1/4"])
def test_shards_make_what_one_process_makes(
    teacher: Checkpoint,
    speech: list[Utterance],
    tmp_path: Path,
    order: str,
    options: dict[str, Any],
) -> None:
    """In any order; `prepare` makes what is missing."""
    expected = whole(teacher, speech, tmp_path / "one", **options)
    report = expected.settings["report"]
    assert "4 with unreadable audio" in report["bad"]
    assert any(window.prompt for window in expected.windows)
    folder = tmp_path / "shards"
    for shard in order.split():
        part(teacher, speech, folder, shard, **options)
        with pytest.raises(ValueError, match=r"unfinished; rerun the same `prepare`.*--shard"):
            Prepared(folder)
    assert (folder / PIECES_FOLDER).is_dir()
    whole(teacher, speech, folder, **options)
    assert content(folder) == content(tmp_path / "one")
    # What is complete is not touched by a machine that is late.
    part(teacher, speech, folder, "1/3", **options)
    assert content(folder) == content(tmp_path / "one")


@pytest.mark.parametrize("seed", range(5))
def test_killed_anywhere_and_resumed_with_any_number(
    teacher: Checkpoint,
    speech: list[Utterance],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Killed before or after any write; the next attempt may have another number of shards."""
    rng = random.Random(seed)
    options = rng.choice([TEACHER, TEXT])
    expected = whole(teacher, speech, tmp_path / "one", **options)
    folder = tmp_path / "killed"
    left = [0]

    def mortal(name: str) -> None:
        original = getattr(PreparedWriter, name)

        def method(self: PreparedWriter, *arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            due = left[0] == 0
            if due and rng.random() < 0.5:
                raise Killed
            result = original(self, *arguments, **named)
            if due:
                raise Killed
            return result

        monkeypatch.setattr(PreparedWriter, name, method)

    for name in ("append", "skip", "finish", "_write_settings"):
        mortal(name)
    kills = 0
    for _ in range(rng.randrange(1, 6)):
        left[0] = rng.randrange(1, 20)
        count = rng.randrange(1, 4)
        try:
            for number in rng.sample(range(1, count + 1), count):
                part(teacher, speech, folder, f"{number}/{count}", **options)
            whole(teacher, speech, folder, **options)
            break
        except Killed:
            kills += 1
    left[0] = 0
    assert kills
    whole(teacher, speech, folder, **options)
    assert content(folder) == content(tmp_path / "one")
    assert len(expected) == len(Prepared(folder))


def test_a_set_is_not_completed_while_a_piece_is_prepared(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    part(teacher, speech, tmp_path, "1/2")
    folder = next((tmp_path / PIECES_FOLDER).iterdir())
    with (
        lock_folder(folder, "prepares data"),
        pytest.raises(BlockingIOError, match=rf"{folder.name}: another process .* prepares data"),
    ):
        whole(teacher, speech, tmp_path)
    with (
        lock_folder(tmp_path, "prepares data"),
        pytest.raises(BlockingIOError, match="prepares data here"),
    ):
        part(teacher, speech, tmp_path, "2/2")


def test_other_settings_are_refused_in_a_shard(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    part(teacher, speech, tmp_path, "1/2")
    with pytest.raises(FileExistsError, match="made with other settings"):
        part(teacher, speech, tmp_path, "2/2", seed=7)


def test_a_set_that_is_not_complete_says_which_settings_differ(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    bad, said = BadRows(allowed=True), list[str]()
    first = Shard.parse("1/2")
    prepare.prepare_shard(teacher, speech, settings(**TEXT), tmp_path, first, bad=bad)
    other = settings(**TEXT | {"seed": 7})
    with pytest.raises(FileExistsError, match="Settings that differ: seed: 0 -> 7"):
        prepare_data(teacher, speech, other, tmp_path, bad=bad, say=said.append)
    assert not said  # it does not resume
    prepare_data(teacher, speech, settings(**TEXT), tmp_path, bad=bad, say=said.append)
    assert "resumes after window" in said[0]
    assert "settings" not in read_settings(tmp_path)


def test_a_bad_window_is_reported_after_a_resume(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process found bad counts too."""
    expected = whole(teacher, speech, tmp_path / "one")
    add = PreparedWriter.add

    def killed(self: PreparedWriter, window: Any, features: torch.Tensor) -> None:
        if window.number == 7:
            raise Killed
        add(self, window, features)

    with monkeypatch.context() as patch:
        patch.setattr(PreparedWriter, "add", killed)
        with pytest.raises(Killed):
            whole(teacher, speech, tmp_path / "killed")
    again = whole(teacher, speech, tmp_path / "killed")
    assert again.settings["report"] == expected.settings["report"]
    assert "2 with unreadable audio" in again.settings["report"]["bad"]


def test_windows_that_two_processes_mixed_up_are_refused(
    teacher: Checkpoint, speech: list[Utterance], tmp_path: Path
) -> None:
    whole(teacher, speech, tmp_path)
    path = tmp_path / WINDOWS_FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for mixed in (
        [lines[1], lines[0], *lines[2:]],
        [*lines[:-1], lines[0]],
        [lines[0], lines[0].replace('"number": 0', '"number": 1'), *lines[2:]],
    ):
        path.write_text("".join(mixed), encoding="utf-8")
        with pytest.raises(ValueError, match=r"missing, repeated or mixed up. Delete the folder"):
            Prepared(tmp_path)


def test_cutting_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BATCHES", 2)
    empty = Window((), full=False)
    plan = [Planned(i, i % 7, i // 7, empty) for i in range(14)]
    cuts = cut(plan, 3)
    assert [window for piece in cuts for window in piece.windows] == plan
    assert [[len(batch) for batch in piece.batches] for piece in cuts] == [[3, 3], [1]] * 2
    assert [(piece.number, piece.number_in_pass) for piece in cuts] == [
        (0, 0), (1, 1), (2, 0), (3, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1/"])
def test_shards_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match="expected i/n with i from 1 to n"):
        Shard.parse(text)


def test_shards_of_processes_are_disjoint_and_complete() -> None:
    numbers = [
        Shard.parse(f"{machine}/3").among(rank, 2) for machine in (1, 2, 3) for rank in (0, 1)
    ]
    assert sorted(shard.number for shard in numbers) == list(range(6))
    assert {shard.count for shard in numbers} == {6}
