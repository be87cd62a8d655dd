"""Output names are decided up front, and files are whole or absent."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.cli.inputs import plan_outputs
from baldwhisper_mlx.files import prepare_folder, write_files


def names(inputs: list[str], extension: str = "txt") -> list[str]:
    plan = plan_outputs(inputs, Path("/nowhere"), [extension], force=False)
    return [outputs[extension].name for outputs in plan]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["a/talk.wav", "b/talk.mp3"], ["talk.txt", "talk-2.txt"]),
        (["talk.wav", "talk.mp3", "talk-2.wav"], ["talk.txt", "talk-3.txt", "talk-2.txt"]),
        (["talk-2.wav", "talk.wav", "talk.mp3"], ["talk-2.txt", "talk.txt", "talk-3.txt"]),
        (["Talk.wav", "talk.wav"], ["Talk.txt", "talk-2.txt"]),
        (["-", "stdin.wav"], ["stdin.txt", "stdin-2.txt"]),
        (["an interview.v2.final.wav", ".hidden", "ɔ̀.ogg"], None),
    ],
)
def test_names(inputs: list[str], expected: list[str] | None) -> None:
    assert names(inputs) == (expected or ["an interview.v2.final.txt", ".hidden.txt", "ɔ̀.txt"])


def test_the_same_letters_composed_differently_are_one_name_on_a_mac() -> None:
    composed = unicodedata.normalize("NFC", "é")
    decomposed = unicodedata.normalize("NFD", "é")
    assert names([f"{composed}.wav", f"{decomposed}.wav"])[1] == f"{decomposed}-2.txt"


stems = st.sampled_from(["a", "A", "a-2", "a-3", "a-2-2", "b", "é", "e\u0301", "ß", "ss"])


@given(st.lists(st.tuples(stems, st.sampled_from(["wav", "mp3"])), max_size=12))
def test_no_two_outputs_share_a_name(inputs: list[tuple[str, str]]) -> None:
    found = names([f"{stem}.{extension}" for stem, extension in inputs])
    assert len({unicodedata.normalize("NFC", name.casefold()) for name in found}) == len(inputs)
    assert found == names([f"{stem}.{extension}" for stem, extension in inputs])
    firsts = {stem: i for i, (stem, _) in reversed(list(enumerate(inputs)))}
    alone = {s for s in firsts if sum(s.casefold() == t.casefold() for t, _ in inputs) == 1}
    for stem in alone - {"é", "e\u0301"}:
        assert found[firsts[stem]] == f"{stem}.txt"


def test_existing_outputs_are_refused_by_name_unless_forced(tmp_path: Path) -> None:
    for name in ("a.txt", "b.srt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "c.txt").symlink_to("gone")
    with pytest.raises(FileExistsError, match="--force") as error:
        plan_outputs(["a.wav", "b.wav", "c.wav"], tmp_path, ["txt", "srt"], force=False)
    assert all(str(tmp_path / name) in str(error.value) for name in ("a.txt", "b.srt", "c.txt"))
    assert str(tmp_path / "a.srt") not in str(error.value)
    plan = plan_outputs(["a.wav"], tmp_path, ["txt"], force=True)
    assert plan == [{"txt": tmp_path / "a.txt"}]


@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_never_an_output(tmp_path: Path, force: bool) -> None:
    audio = tmp_path / "a.txt"
    audio.touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="replace an input"):
        plan_outputs([str(audio)], tmp_path / "link", ["txt"], force=force)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ValueError, match=r"a\.txt: a folder"):
        plan_outputs(["a.wav"], tmp_path, ["txt"], force=force)


def test_the_folder_is_created_and_left_empty(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: is a file, not a folder"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot write to this folder"):
        prepare_folder(tmp_path / "file" / "below")


def test_a_folder_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refuse)  # permission bits do not stop root
    with pytest.raises(ValueError, match=r"cannot write to this folder \(Permission denied\)"):
        prepare_folder(tmp_path)


def test_files_are_utf8_with_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    path = tmp_path / f"{'x' * 250}.txt"  # as long as a name may be
    write_files({path: "ɔ̀\r\n"}, force=False)
    assert path.read_bytes() == "ɔ̀\r\n".encode()
    assert path.stat().st_mode == ordinary.stat().st_mode
    assert {entry.name for entry in tmp_path.iterdir()} == {"ordinary", path.name}


def test_what_appeared_in_the_meantime_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("theirs")
    with pytest.raises(FileExistsError, match=r"a\.txt: created by another program"):
        write_files({path: "ours"}, force=False)
    assert path.read_text() == "theirs"
    write_files({path: "ours"}, force=True)
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_files_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write = Path.write_bytes
    count = 0

    def fail_second(self: Path, data: bytes) -> int:
        nonlocal count
        count += 1
        if count == 2:
            write(self, data[: len(data) // 2])
            raise error
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail_second)
    with pytest.raises(type(error)):
        write_files({tmp_path / "a.txt": "one", tmp_path / "a.srt": "two"}, force=False)
    assert os.listdir(tmp_path) == []
