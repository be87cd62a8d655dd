"""Input names on the command line: which files they stand for, and how their outputs are named.

`expand` turns folders and patterns into files; `plan_outputs` chooses an output path for each
before any work is done. Standard library only.
"""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from baldwhisper_mlx.audio.folders import audio_files

STDIN = "-"
"""The input name that means standard input; its outputs are named `stdin`."""


def expand(names: Sequence[str]) -> list[str]:
    """Files for names on the command line, in their order, each once.

    A folder stands for the audio files in it and below, sorted, without hidden ones; a pattern
    such as `talks/*.mp3` or `talks/**/*.mp3` for the files that match it. A name that stands for
    no file is kept, so that reading it fails with an error about it.

    Example:
        >>> expand(["-", "no-such-file.wav"])
        ['-', 'no-such-file.wav']
    """
    return list(dict.fromkeys(file for name in names for file in _files(name) or [name]))


def _files(name: str) -> list[str]:
    path = Path(name)
    if name == STDIN or path.is_file():
        return [name]
    if path.is_dir():
        return [str(file) for file in audio_files(path)]
    if not glob.has_magic(name):
        return []
    return [file for file in sorted(glob.glob(name, recursive=True)) if Path(file).is_file()]


def plan_outputs(
    inputs: Sequence[str], folder: Path, extensions: Sequence[str], *, force: bool
) -> list[dict[str, Path]]:
    """Chooses an output path for every input and format, before anything is decoded.

    An output is named after its input without the extension. If an earlier input has the same
    stem, `-2`, `-3` and so on are appended, in the order of the command line. Names that differ
    only in case or in Unicode composition count as the same, because they are the same file on a
    Mac.

    Args:
        inputs: audio paths, or `-`.
        folder: for the outputs; it need not exist and is not created.
        extensions: one per format, without the dot.
        force: whether files that exist may be replaced.

    Returns:
        Per input, extension to output path.

    Raises:
        ValueError: an output would replace an input or a folder, or its name is too long.
        FileExistsError: outputs exist and `force` is not set; the message names them.
    """
    plan = [
        {extension: folder / f"{stem}.{extension}" for extension in extensions}
        for stem in _distinct_stems([_stem(name) for name in inputs])
    ]
    paths = [path for outputs in plan for path in outputs.values()]
    _check_lengths(paths, folder)
    sources = {os.path.realpath(name) for name in inputs if name != STDIN}
    for path in paths:
        if os.path.realpath(path) in sources:
            raise ValueError(f"{path}: the output would replace an input; use another --output-dir")
        if path.is_dir():
            raise ValueError(
                f"{path}: a folder has the output's name; remove it, or use another --output-dir"
            )
    existing = [str(path) for path in paths if os.path.lexists(path)]
    if existing and not force:
        raise FileExistsError(
            f"{', '.join(existing)}: exists; use --force to replace, --skip-existing to keep, or "
            "another --output-dir"
        )
    return plan


def _check_lengths(paths: Sequence[Path], folder: Path) -> None:
    """Refuses names that the file system does not take, before any work is done."""
    there = next((f for f in (folder, *folder.absolute().parents) if f.is_dir()), Path("/"))
    try:
        most = os.pathconf(there, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        most = 255
    for path in paths:
        if len(os.fsencode(path.name)) > most:
            raise ValueError(
                f"{path}: the output's name is longer than the {most} bytes that the file system "
                "allows; rename the input"
            )


def without_existing(
    files: Sequence[str], plan: Sequence[dict[str, Path]]
) -> tuple[tuple[str, ...], list[dict[str, Path]]]:
    """The inputs with outputs that do not exist yet, and those outputs.

    Args:
        files: audio paths, or `-`.
        plan: from `plan_outputs`.
    """
    missing = [
        {kind: path for kind, path in outputs.items() if not os.path.lexists(path)}
        for outputs in plan
    ]
    kept = [i for i, outputs in enumerate(missing) if outputs]
    return tuple(files[i] for i in kept), [missing[i] for i in kept]


def _stem(name: str) -> str:
    return "stdin" if name == STDIN else Path(name).stem


def _distinct_stems(stems: Sequence[str]) -> list[str]:
    """The stems with `-2`, `-3`, ... after repeated ones; never a name another input has."""
    wanted = {_comparable(stem) for stem in stems}
    taken: set[str] = set()
    distinct = []
    for stem in stems:
        name, count = stem, 1
        while _comparable(name) in taken or (count > 1 and _comparable(name) in wanted):
            count += 1
            name = f"{stem}-{count}"
        taken.add(_comparable(name))
        distinct.append(name)
    return distinct


def _comparable(name: str) -> str:
    """The same text for names that are one file on a Mac."""
    return unicodedata.normalize("NFC", name.casefold())
