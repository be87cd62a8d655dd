"""Every option that docs/differences.md gives for one of another program is there."""

from __future__ import annotations

import inspect

import click

import baldwhisper_mlx
from baldwhisper_mlx.cli.main import cli
from tests.support.option_tables import Row, option_rows


def check(rows: list[Row]) -> None:
    assert rows
    assert all(row.theirs and row.programs and row.programs <= set("omf") for row in rows)
    named = [(name, program) for row in rows for name in row.theirs for program in row.programs]
    assert len(named) == len(set(named))
    # What has no name of ours says so.
    assert all(row.names or row.ours.startswith(("not there", "none")) for row in rows)


def test_python_options() -> None:
    rows = option_rows("Python")
    check(rows)
    for row in rows:
        taken = inspect.signature(getattr(baldwhisper_mlx, row.owner)).parameters
        missing = [name for name in row.names if name not in taken]
        assert not missing, f"{row.owner} does not take {missing}"


def test_no_option_is_said_to_be_missing_that_is_there() -> None:
    taken = inspect.signature(baldwhisper_mlx.transcribe).parameters
    for row in option_rows("Python"):
        if row.ours.startswith("not there"):
            assert not set(row.theirs) & set(taken)


def test_options_of_the_command() -> None:
    rows = option_rows("Command line")
    check(rows)
    command = cli.get_command(click.Context(cli), "transcribe")
    assert command is not None
    taken = {option for parameter in command.params for option in parameter.opts}
    for row in rows:
        missing = [name for name in row.names if name not in taken]
        assert not missing, f"baldwhisper transcribe does not take {missing}"
        if row.ours.startswith("none"):
            assert not set(row.theirs) & taken
