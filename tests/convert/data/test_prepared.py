"""Prepared data on disk: what is written is read, and a killed run is continued to the byte."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.data.prepared import (
    FEATURES_FILE,
    MEL,
    SETTINGS_FILE,
    STATES,
    WINDOWS_FILE,
    Choice,
    Prepared,
    PreparedWindow,
)
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from tests.support.tiny_speech import tiny_window

WIDTH = 3
Item = tuple[PreparedWindow, torch.Tensor]


def item(number: int, positions: int, text: str = "naïve 狐", kind: str = STATES) -> Item:
    """A window and its features, all of them different numbers."""
    generator = torch.Generator().manual_seed(number)
    shape = (WIDTH, 2 * positions) if kind == MEL else (positions, WIDTH)
    features = torch.randn(shape, generator=generator)
    return tiny_window(number, positions=positions, text=text), features


def write(folder: Path, items: list[Item], kind: str = STATES, key: str = "k") -> Path:
    with PreparedWriter(folder, key=key, features=kind, width=WIDTH) as writer:
        for window, features in items[writer.count :]:
            writer.add(window, features)
        assert writer.count == len(items)
        writer.finish(settings={"language": "en", "windows": {"margin": 0.5}})
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", [STATES, MEL])
def test_round_trip_through_float16(tmp_path: Path, kind: str) -> None:
    items = [item(i, positions, kind=kind) for i, positions in enumerate([5, 1, 9])]
    data = Prepared(write(tmp_path / "data", items, kind))
    assert len(data) == 3
    assert data.is_mel == (kind == MEL)
    for number, (window, features) in enumerate(items):
        found = data.features(number)
        assert found.dtype == torch.float32
        assert torch.equal(found, features.half().float())
        stored = data.windows[number]
        assert (stored.tokens, stored.text) == (window.tokens, window.text)
    factor = 2 if kind == MEL else 1
    assert [w.offset for w in data.windows] == [0, 5 * WIDTH * factor, 6 * WIDTH * factor]
    assert data.fingerprint == "k/3"
    assert data.language == "en"


def test_features_may_be_views(tmp_path: Path) -> None:
    window, _ = item(0, 4)
    whole = torch.randn(9, WIDTH, requires_grad=True)
    data = Prepared(write(tmp_path / "data", [(window, whole.t()[:, 2:6].t())]))
    assert torch.equal(data.features(0), whole.detach()[2:6].half().float())


texts = st.text(max_size=8).map(lambda text: text + "é狐")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_killed_run_is_continued(data: st.DataObject) -> None:
    """Whatever is left of the two files, the end is that of a run that was not killed."""
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 5), texts), min_size=1, max_size=5))
    items = [item(i, positions, text) for i, (positions, text) in enumerate(sizes)]
    with TemporaryDirectory() as folder:
        expected = content(write(Path(folder, "whole"), items))
        killed = Path(folder, "killed")
        with PreparedWriter(killed, key="k", features=STATES, width=WIDTH) as writer:
            for window, features in items:
                writer.add(window, features)
        for name in (FEATURES_FILE, WINDOWS_FILE):
            left = data.draw(st.integers(0, len(expected[name])), label=name)
            (killed / name).write_bytes(expected[name][:left])
        with pytest.raises(ValueError, match="unfinished; rerun the same"):
            Prepared(killed)
        assert content(write(killed, items)) == expected
        assert len(Prepared(killed)) == len(items)


def test_features_written_after_the_last_line_are_cut(tmp_path: Path) -> None:
    items = [item(i, 2) for i in range(3)]
    expected = content(write(tmp_path / "whole", items))
    with PreparedWriter(tmp_path / "b", key="k", features=STATES, width=WIDTH) as writer:
        writer.add(*items[0])
    with (tmp_path / "b" / FEATURES_FILE).open("ab") as file:
        file.write(b"half of the next one's feature")
    with PreparedWriter(tmp_path / "b", key="k", features=STATES, width=WIDTH) as again:
        assert [window.number for window in again.done] == [0]
    assert content(write(tmp_path / "b", items)) == expected


def test_complete_data_is_not_written_again(tmp_path: Path) -> None:
    write(tmp_path, [item(0, 2)])
    before = content(tmp_path)
    assert PreparedWriter(tmp_path, key="k", features=STATES, width=WIDTH).complete
    assert content(tmp_path) == before


def test_other_settings_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [item(0, 2)])
    with pytest.raises(FileExistsError, match="made with other settings"):
        PreparedWriter(tmp_path, key="other", features=STATES, width=WIDTH)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear to somebody")
    for path in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(FileExistsError, match="is not prepared data"):
            PreparedWriter(path, key="k", features=STATES, width=WIDTH)
    assert content(tmp_path) == {"thesis.txt": b"dear to somebody"}
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_features_that_float16_does_not_hold(tmp_path: Path, value: float) -> None:
    window, features = item(0, 2)
    features[1, 1] = value
    with (
        PreparedWriter(tmp_path, key="k", features=STATES, width=WIDTH) as writer,
        pytest.raises(ValueError, match=r"a\.wav: features are not finite in float16"),
    ):
        writer.add(window, features)
    assert (tmp_path / FEATURES_FILE).read_bytes() == b""
    assert (tmp_path / WINDOWS_FILE).read_bytes() == b""


@pytest.mark.parametrize("name", [FEATURES_FILE, WINDOWS_FILE])
@pytest.mark.parametrize("change", [-1, 1])
def test_damaged_data_is_refused(tmp_path: Path, name: str, change: int) -> None:
    """A byte more or less: of features an odd number, of lines another count."""
    write(tmp_path, [item(0, 2), item(1, 3)])
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:change] if change < 0 else whole + b"\n")
    message = {
        (FEATURES_FILE, -1): r"has 14\.5 values, not 15",
        (FEATURES_FILE, 1): r"has 15\.5 values, not 15",
        (WINDOWS_FILE, -1): "has 15 values, not 6",
        (WINDOWS_FILE, 1): "line 3 is damaged",
    }[name, change]
    with pytest.raises(ValueError, match=message):
        Prepared(tmp_path)


def test_damaged_lines_are_named(tmp_path: Path) -> None:
    write(tmp_path, [item(0, 2)])
    line = json.loads((tmp_path / WINDOWS_FILE).read_text())
    for damage in ({"tokens": None}, {"unknown": 1}):
        (tmp_path / WINDOWS_FILE).write_text(json.dumps(line | damage) + "\n")
        with pytest.raises(ValueError, match=rf"{WINDOWS_FILE}: line 1 is damaged"):
            Prepared(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=SETTINGS_FILE):
        Prepared(tmp_path / "nowhere")


@pytest.fixture
def parts(tmp_path: Path) -> list[Prepared]:
    sizes = {"a": 40, "b": 10}
    return [
        Prepared(write(tmp_path / key, [item(100 * ord(key) + i, 1) for i in range(n)], key=key))
        for key, n in sizes.items()
    ]


@pytest.mark.parametrize("share", [0.25, 1.0, 2.5])
def test_choice_shares(parts: list[Prepared], share: float) -> None:
    a = parts[0]
    choice = Choice([(a, share)], seed=1)
    counts = Counter(window.number for window in choice.windows)
    assert len(choice.windows) == round(share * len(a))
    assert set(counts.values()) <= {int(share), int(share) + 1}
    assert choice.windows == Choice([(a, share)], seed=1).windows
    differs = choice.windows != Choice([(a, share)], seed=2).windows
    assert differs == (share != 1)


def test_choice_of_several(parts: list[Prepared]) -> None:
    a, b = parts
    choice = Choice([(a, 0.5), (b, 1.0)])
    assert len(choice.windows) == 30
    own = {w.number: part.features(i) for part in parts for i, w in enumerate(part.windows)}
    assert len(own) == len(a) + len(b)
    for index, window in enumerate(choice.windows):
        assert torch.equal(choice.features(index), own[window.number])
    # What is chosen from one part does not depend on the others.
    assert choice.windows[:20] == Choice([(a, 0.5)]).windows
    assert not choice.is_mel


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_choice_needs_shares_above_zero(parts: list[Prepared], share: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Choice([(parts[0], share)])


def test_choice_needs_parts_that_are_alike(parts: list[Prepared], tmp_path: Path) -> None:
    nothing: list[Any] = []
    with pytest.raises(ValueError, match="no prepared data"):
        Choice(nothing)
    mel = Prepared(write(tmp_path / "mel", [item(0, 2, kind=MEL)], MEL))
    french = tmp_path / "french"
    with PreparedWriter(french, key="f", features=STATES, width=WIDTH) as writer:
        writer.add(*item(0, 2))
        writer.finish(settings={"language": "fr", "windows": {"margin": 0.5}})
    silent = tmp_path / "no_text"
    with PreparedWriter(silent, key="n", features=STATES, width=WIDTH) as writer:
        writer.add(*item(0, 2))
        settings = {"language": "en", "labels": "none", "windows": {"margin": 0.5}}
        writer.finish(settings=settings)
    assert not Choice([(Prepared(silent), 1.0)]).labelled
    assert Choice([(parts[0], 1.0), (Prepared(french), 1.0)]).languages[-1] == "fr"
    for other in (mel, Prepared(silent)):
        with pytest.raises(ValueError, match=r"differ in features, labels .* or audio contexts"):
            Choice([(parts[0], 1.0), (other, 1.0)])
    nothing_in_it = Prepared(write(tmp_path / "empty", []))
    with pytest.raises(ValueError, match="empty: no windows"):
        Choice([(parts[0], 1.0), (nothing_in_it, 1.0)])


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"complete": true}', "[" * 10**5, '{"key": 1}', "null"]
)
def test_damaged_settings_say_what_to_delete(content: str, tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(content)
    match = r"prepared\.json.*; delete the folder and prepare again"
    with pytest.raises(ValueError, match=match):
        Prepared(tmp_path)
    with pytest.raises(ValueError, match=match):
        PreparedWriter(tmp_path, key="k", features=STATES, width=WIDTH)
