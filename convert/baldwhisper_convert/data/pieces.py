"""Cuts a plan of windows into pieces, which several processes or machines prepare.

A piece is a number of whole batches, so neither the pieces nor the windows that are encoded and
decoded together depend on the number of processes. Each piece is prepared data of its own, below
the folder of the whole set, with its own lock; `finish` appends the pieces to the set in order.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from baldwhisper_convert.data.labels import Labeller
from baldwhisper_convert.data.prepared import (
    SETTINGS_FILE,
    Prepared,
    PreparedWindow,
    read_settings,
    read_windows,
)
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from baldwhisper_convert.data.windows import Planned
from baldwhisper_convert.locks import lock_folder
from baldwhisper_convert.progress import progress_bar

PIECES_FOLDER = "pieces"
"""In the folder of a set that is not complete; holds a folder for each piece."""

PIECE_BATCHES = 8
"""Batches of a piece; a process that is killed loses at most the batch that it works on."""

WAIT = 60.0
"""Seconds to wait for another process to look into a folder; if it takes longer, it works there."""

Skip = Callable[[int, str, str], None]
"""`PreparedWriter.skip`."""


class Builder(Protocol):
    """Makes windows from their plans."""

    @property
    def labels(self) -> Labeller:
        """Labels windows, and knows those of all windows so far."""
        ...

    def build(
        self, planned: Sequence[Planned], skip: Skip
    ) -> Iterator[tuple[PreparedWindow, Tensor]]:
        """Builds one batch; windows without a usable label are left out."""
        ...


@dataclass(frozen=True)
class Shard:
    """The part of the pieces that one process, or one machine, prepares."""

    number: int = 0
    """From 0."""
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parses `2/4`, the second of four.

        Raises:
            ValueError: not two numbers, or the first is not between 1 and the second.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()) or not (
            1 <= int(number) <= int(count)
        ):
            raise ValueError(f"--shard {text}: expected i/n with i from 1 to n, such as 2/4")
        return cls(int(number) - 1, int(count))

    def among(self, rank: int, processes: int) -> Shard:
        """The part of this shard that one of several processes prepares."""
        return Shard(self.number * processes + rank, self.count * processes)


@dataclass(frozen=True)
class Piece:
    """Consecutive batches of one pass over the speech."""

    number: int
    """In the whole plan, from 0."""
    number_in_pass: int
    batches: Sequence[Sequence[Planned]]

    @property
    def windows(self) -> list[Planned]:
        """Its windows in order."""
        return [window for batch in self.batches for window in batch]


def cut(plan: Sequence[Planned], batch_size: int) -> list[Piece]:
    """Cuts a plan into pieces of whole batches; each pass starts with a new batch and piece."""
    pieces: list[Piece] = []
    passes = sorted({window.number_of_pass for window in plan})
    for each in passes:
        windows = [window for window in plan if window.number_of_pass == each]
        batches = [windows[i : i + batch_size] for i in range(0, len(windows), batch_size)]
        for number, first in enumerate(range(0, len(batches), PIECE_BATCHES)):
            pieces.append(Piece(len(pieces), number, batches[first : first + PIECE_BATCHES]))
    return pieces


def windows_so_far(folder: Path, key: str = "") -> int | None:
    """Number of windows that a folder of prepared data has, in its pieces too; None if all.

    Args:
        folder: of the set; it need not exist.
        key: of the set; data of other settings counts as none.

    Raises:
        ValueError: damaged data.
    """
    done = set[int]()
    for part in (folder, *sorted((folder / PIECES_FOLDER).glob("*"))):
        if not (part / SETTINGS_FILE).is_file():
            continue
        stored = read_settings(part)
        if stored["key"] == (key or stored["key"]):
            if stored["complete"] and part is folder:
                return None
            done |= {window.number for window in read_windows(part)}
    return len(done)


class PieceWork:
    """Prepares the pieces of one set.

    Args:
        folder: of the set.
        pieces: from `cut`.
        builder: makes the windows.
        identity: the arguments `key`, `audio`, `features` and `width` of `PreparedWriter`.
        quiet: whether to show no progress.
    """

    def __init__(
        self,
        folder: Path,
        pieces: Sequence[Piece],
        builder: Builder,
        identity: dict[str, Any],
        *,
        quiet: bool = False,
    ) -> None:
        self.folder, self.pieces, self.builder = folder, pieces, builder
        self.identity, self.quiet = identity, quiet

    def work(self, shard: Shard) -> None:
        """Prepares the pieces of a shard, or those of them that are not complete.

        Pieces of all passes over the same windows are in the same shard, because the teacher labels
        the first pass only.

        Raises:
            FileExistsError: the folder holds data of other settings or audio, or something else.
            BlockingIOError: another process prepares one of them, or the whole set.
        """
        whole = PreparedWriter(self.folder, **self.identity, wait=WAIT)
        whole.close()
        if whole.complete:
            return
        self._load_labels(whole.done)
        mine = [p for p in self.pieces if p.number_in_pass % shard.count == shard.number]
        with self._bar(mine) as bar:
            for piece in mine:
                if piece.windows[-1].number >= whole.next_number:
                    self._piece(piece, bar)
                else:
                    bar.update(len(piece.windows))

    def finish(self, report: Callable[[PreparedWriter], dict[str, Any]]) -> None:
        """Completes the set: appends pieces in order, and prepares what is in none of them.

        Args:
            report: returns the report for the finished set.

        Raises:
            FileExistsError: as `work`.
            BlockingIOError: another process prepares data in the folder.
        """
        writer = PreparedWriter(self.folder, **self.identity)
        if writer.complete:
            return
        with writer, self._bar(self.pieces) as bar:
            self._check_pieces_are_free()
            self._load_labels(writer.done)
            start = writer.next_number
            for piece in self.pieces:
                if piece.windows[-1].number < start:
                    bar.update(len(piece.windows))
                elif self._folder(piece).is_dir():
                    self._piece(piece, None)
                    self._append(writer, piece, start)
                    bar.update(len(piece.windows))
                else:
                    self._fill(writer, piece, start, bar, prompts=True)
                # What is in the set is safe; two copies of it would need twice the disk.
                shutil.rmtree(self._folder(piece), ignore_errors=True)
            shutil.rmtree(self.folder / PIECES_FOLDER, ignore_errors=True)
            writer.finish(**report(writer))

    def _piece(self, piece: Piece, bar: Any | None) -> None:
        """Prepares a piece in its folder, unless it is complete."""
        folder = self._folder(piece)
        if bar is None:  # inside `finish`, which has locked the set
            writer = PreparedWriter(folder, **self.identity)
        else:
            # Nobody may complete the set while a piece is begun.
            with lock_folder(self.folder, "prepares data", wait=WAIT):
                writer = PreparedWriter(folder, **self.identity)
        if writer.complete:
            if bar is not None:
                bar.update(len(piece.windows))
            return
        with writer:
            start = max(writer.next_number, piece.windows[0].number)
            # The window before may be in a piece that is not there yet; `_append` knows all.
            self._fill(writer, piece, start, bar, prompts=False)
            writer.finish(skipped=writer.skipped)

    def _fill(
        self,
        writer: PreparedWriter,
        piece: Piece,
        start: int,
        bar: Any | None,
        *,
        prompts: bool,
    ) -> None:
        """Makes the windows of a piece from number `start` on, always in whole batches."""

        def skip(number: int, reason: str, what: str) -> None:
            if number >= start:
                writer.skip(number, reason, what)

        for batch in piece.batches:
            if batch[-1].number >= start:
                for window, features in self.builder.build(batch, skip):
                    if window.number >= start:
                        kept = window if prompts else dataclasses.replace(window, prompt=())
                        writer.add(kept, features)
            if bar is not None:
                bar.update(len(batch))

    def _append(self, writer: PreparedWriter, piece: Piece, start: int) -> None:
        """Appends the windows of a complete piece, from number `start` on, with their prompts."""
        prepared = Prepared(self._folder(piece))
        for number, reason, what in prepared.settings["report"]["skipped"]:
            if number >= start:
                writer.skip(number, reason, what)
        planned = {window.number: window for window in piece.windows}
        for index, window in enumerate(prepared.windows):
            if window.number >= start:
                prompt = self.builder.labels.before(planned[window.number])
                complete = dataclasses.replace(window, prompt=prompt)
                writer.append(complete, prepared.values(index))

    def _load_labels(self, done: Sequence[PreparedWindow]) -> None:
        """Loads the labels of all windows that the set and the pieces hold."""
        self.builder.labels.resume(done)
        for folder in self._folders():
            self.builder.labels.resume(list(read_windows(folder)))

    def _check_pieces_are_free(self) -> None:
        """Checks that no process prepares a piece.

        Raises:
            BlockingIOError: one does; the message names it.
        """
        for folder in self._folders():
            with lock_folder(folder, "prepares data"):
                pass

    def _folder(self, piece: Piece) -> Path:
        return self.folder / PIECES_FOLDER / f"{piece.number:06}"

    def _folders(self) -> list[Path]:
        folder = self.folder / PIECES_FOLDER
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def _bar(self, pieces: Sequence[Piece]) -> Any:
        total = sum(len(piece.windows) for piece in pieces)
        return progress_bar(total, "prepare", "window", disable=self.quiet)
