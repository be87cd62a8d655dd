"""Gives transcripts without case and punctuation those of a model's output.

Many corpora have transcripts in upper case without punctuation, which a model should not be trained
to write. A model's output has case and punctuation, but also wrong words, on accents many. Here the
words stay those of the transcript, written as the model wrote them where it recognized them:

    baldwhisper evaluate --model whisper-base --data CORPUS --language en --output labels
    python scripts/restore_text.py CORPUS labels/hypotheses.jsonl restored.jsonl

restored.jsonl lists the recordings of CORPUS, which stay where they are, with the new text. The
labels travel as text, so the model may have another vocabulary than the one to be trained.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

from baldwhisper_mlx.audio.speech_dataset import audio_of, read_rows
from baldwhisper_mlx.output.json_lines import write_json_lines

_SENTENCE_END = (".", "?", "!")
_END = re.compile(r"[.,;:?!]+$")
_FIRST_PERSON = re.compile(r"i('.+)?", re.IGNORECASE)


def restore(transcript: str, output: str) -> str:
    """The transcript with the case and punctuation of a model's output.

    Words in which both agree, up to the spelling of numbers, titles and compounds, are taken as
    the model wrote them. Other words of the transcript are set in lower case, or with a capital
    where the model wrote one in their place, and keep the punctuation of what they replace.

    Args:
        transcript: the right words.
        output: what a model transcribed; may be empty.

    Example:
        >>> restore("WE MET GRAHAM AT TEN", "We met Grayem, at 10.")
        'We met Graham, at 10.'
        >>> restore("I SAID I'M HERE", "")
        "I said I'm here."
    """
    right, written = transcript.split(), output.split()
    matcher = SequenceMatcher(None, _keys(right), _keys(written), autojunk=False)
    words: list[str] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal" or _same(right[i:j], written[k:m]):
            words += written[k:m]
        else:
            words += _rewritten(right[i:j], written[k:m])
            if i == j and words and (mark := _END.search(written[m - 1])):
                words[-1] = _END.sub("", words[-1]) + mark.group()
    return _as_sentences(words, closed=bool(written))


def _rewritten(right: Sequence[str], written: Sequence[str]) -> list[str]:
    """Words of the transcript in the place of other words that the model wrote."""
    words = [word.lower() for word in right]
    for i, word in enumerate(written[: len(words)]):
        if word[:1].isupper() and not _FIRST_PERSON.fullmatch(_END.sub("", word)):
            words[i] = _capitalized(words[i])
    if words and written and (mark := _END.search(written[-1])):
        words[-1] += mark.group()
    return words


def _as_sentences(words: Sequence[str], *, closed: bool) -> str:
    """Joins words, with capitals in "I" and at the start of sentences.

    Args:
        words: with their punctuation.
        closed: whether the punctuation at the end is known; otherwise a period is added.
    """
    result: list[str] = []
    for word in words:
        starts = not result or result[-1].endswith(_SENTENCE_END)
        first_person = _FIRST_PERSON.fullmatch(_END.sub("", word))
        result.append(_capitalized(word) if starts or first_person else word)
    text = " ".join(result)
    return text if closed or not text or text.endswith(_SENTENCE_END) else text + "."


def _capitalized(word: str) -> str:
    return word[:1].upper() + word[1:]


def _keys(words: Sequence[str]) -> list[str]:
    """What words are compared by: lower case, without punctuation around them."""
    return [re.sub(r"^[^\w]+|[^\w]+$", "", word.lower()) for word in words]


def _same(right: Sequence[str], written: Sequence[str]) -> bool:
    """Whether words are the same but for numbers, titles, contractions and compounds."""
    if not right or not written:
        return False
    a, b = (_normalizer()(" ".join(words)) for words in (right, written))
    return bool(a == b or a.replace(" ", "") == b.replace(" ", "").replace("-", ""))


@cache
def _normalizer() -> Any:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def restore_list(source: str, hypotheses: Path, target: Path) -> tuple[int, int]:
    """Writes a list of the recordings of a source with restored text.

    Args:
        source: a folder or list as `read_rows` reads it.
        hypotheses: `hypotheses.jsonl` of `baldwhisper evaluate`, of as many of them as there are.
        target: the list to write, JSONL.

    Returns:
        The number of recordings, and of those with a hypothesis.

    Raises:
        FileNotFoundError: no such source, or no hypotheses.
        ValueError: a recording that is not a file, or hypotheses of other recordings.
    """
    with hypotheses.open(encoding="utf-8") as lines:
        rows = [row for line in lines if "file" in (row := json.loads(line))]
    if len({row.get("run") for row in rows}) > 1:
        raise ValueError(f"{hypotheses}: has the output of several models or options")
    outputs = {row["file"]: str(row["text"]) for row in rows}
    found, listed = 0, []
    recordings, base = read_rows(source)
    for row in recordings:
        audio = audio_of(row, "audio", base)
        if not isinstance(audio, str):
            raise ValueError(f"{source}: only lists of files can be restored")
        below = audio.removeprefix(f"{base}{os.sep}")
        output = outputs.get(Path(below).as_posix())
        found += output is not None
        plain = {key: value for key, value in row.items() if key not in ("path", "audio")}
        names = {
            "file_name": str(Path(audio).resolve()),
            "text": restore(row["text"], output or ""),
        }
        listed.append(plain | names)
    if not found:
        raise ValueError(f"{hypotheses}: has no output for any recording of {source}")
    write_json_lines(target, listed)
    return len(listed), found


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder or list of recordings with their transcripts")
    parser.add_argument("hypotheses", type=Path, help="hypotheses.jsonl of `baldwhisper evaluate`")
    parser.add_argument("target", type=Path, help="list to write, JSONL")
    arguments = parser.parse_args()
    try:
        count, found = restore_list(arguments.source, arguments.hypotheses, arguments.target)
    except (OSError, ValueError) as error:
        print(f"restore_text.py: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.target}: {count} recordings, {count - found} without an output of the model")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
