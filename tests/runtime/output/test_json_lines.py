"""Files of JSON lines: whatever an interrupted program leaves, no whole row is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines, write_json_lines

VALUES = st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers(), max_size=3))
ROWS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=4)


@given(ROWS, ROWS, st.integers(min_value=0))
def test_rows_come_back_after_an_interruption(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
    cut: int,
) -> None:
    """A file that is cut anywhere has the rows before the cut, and then those that are appended."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    append_json_lines(path, first)
    content = path.read_bytes()[: cut % (path.stat().st_size + 1)]
    path.write_bytes(content)
    whole = first[: content.count(b"\n")]
    assert read_json_lines(path) == whole
    assert path.read_bytes() == content  # reading changes nothing
    append_json_lines(path, second)
    assert read_json_lines(path) == whole + second


def test_written_rows_replace_those_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_json_lines(path, [1, 2])
    write_json_lines(path, [{"text": "été"}])
    assert read_json_lines(path) == [{"text": "été"}]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_another_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a"\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl: line 2 is damaged"):
        read_json_lines(path)
