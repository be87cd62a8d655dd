"""Splits texts into sentences that a speech synthesizer reads exactly as they are written.

Synthetic speech is useful for training only if the audio matches the text. So this module repairs
the typography (dashes, italics, quotation marks), splits the text into sentences, and drops those
with symbols that voices read in different ways. All functions are pure; `get_texts.py` calls them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MIN_WORDS, MAX_WORDS = 4, 40
NGRAM = 7
"""Length in words of the n-grams that must not be shared with an excluded transcript."""

_CHARACTERS = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "--", "\u2014": "--"}
    | {"\u2026": "...", "\u00a0": " ", "`": "'", "_": None, "*": None, "\u00ad": None}
    | {"\u00e6": "ae", "\u00c6": "Ae", "\u0153": "oe"}
)
_TYPOGRAPHY = str.maketrans({"\u2019": "'", "\u00a0": " ", "\u202f": " ", "\u2026": "..."})
_REWRITES = (
    (re.compile(r"\[[^][]{0,200}\]"), " "),  # footnotes, editors' notes, [Applause.]
    (re.compile(r"\s*-{2,}\s*"), "--"),
    (re.compile(r"(?<=[,;:])--"), " "),
    (re.compile(r"(?<=[.!?])(['\"]?)--"), r"\1 "),
    (re.compile(r"--(?=['\"]?(?:\s|$))"), ", "),
    (re.compile(r"--"), ", "),
    (re.compile(r"\s*\(([^()]{1,150})\)\s*([,;:.!?]?)"), r", \1, \2"),
    (re.compile(r"\s+&\s+"), " and "),
    (re.compile(r"\s+([,;:.!?])"), r"\1"),
    (re.compile(r",+\s*([;:.!?])"), r"\1"),
    (re.compile(r",(?:\s*,)+"), ","),
    (re.compile(r"([;:])\s*,"), r"\1"),
    (re.compile(r"\s+"), " "),
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Messrs|Dr|St|Esq|Capt|Col|Gen|Gov|Lieut|Lt|Sen|Rev|Hon|Prof|Jr|Sr|No|Nos|"
    r"Vol|viz|vs|etc|e\.g|i\.e|cf|ed|art|ch)|(?:^|[\s.\"'])[A-Z])\.$"
)
_BOUNDARY = re.compile(r"(?<=[.!?])(['\"]{0,2})\s+(?=['\"]{0,2}[A-Z0-9])")
_ALLOWED = re.compile(r"['\"]?[A-Z][A-Za-z0-9 ,;:.!?'\"-]*[.!?]['\"]?")
_LETTERS = re.compile(r"[^\W\d_](?:[^\W\d_]|[ ,;:!?.'-])*[.!?]")
_WORD = re.compile(r"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*")
_NUMBER = re.compile(r"(?:[1-9][0-9]?|1[5-9][0-9]{2}|20[0-3][0-9])(?:th|st|nd|rd)?")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b|\b[A-Z]\.[A-Z]\.")
_FRAGMENT = re.compile(r"(?<!')\b[^\W\daAIOo]\b(?!')|\.[A-Za-z]|[a-z][A-Z]|\.\.|['\"]{3}")
_SHORTENED = re.compile(r"\b(?:Nos?|Vol|viz|etc|e\.g|i\.e|cf|Esq|Lieut|Messrs|ed|art|ch)\.")


def paragraphs(text: str) -> list[str]:
    """Splits a text at blank lines and joins the lines of each paragraph with spaces."""
    return [" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def clean(text: str) -> str:
    """Normalizes the typography of one paragraph.

    Dashes become commas unless there is other punctuation, curly quotation marks become straight
    ones, the marks of italics and parentheses are removed, and footnotes in brackets are dropped.
    """
    text = text.translate(_CHARACTERS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip(" ,;:")


def split_sentences(paragraph: str) -> list[str]:
    """Splits a cleaned paragraph at full stops, question and exclamation marks.

    A mark ends a sentence if a capital or a digit follows it and no abbreviation (Mr., an initial)
    precedes it. Except for white space at the splits, the text is unchanged.
    """
    sentences, start = [], 0
    for match in _BOUNDARY.finditer(paragraph):
        head = paragraph[start : match.start()]
        if not match.group(1) and _ABBREVIATION.search(head):
            continue
        sentences.append(paragraph[start : match.end(1)].strip())
        start = match.end()
    rest = paragraph[start:].strip()
    return [sentence for sentence in [*sentences, rest] if sentence]


def balance_quotes(sentence: str) -> str:
    """Removes the quotation marks of a sentence that has only one end of a quotation.

    Double marks must alternately open after a space and close before one. There must be as many
    single marks at the start of words as after punctuation; apostrophes are kept.
    """
    parts = sentence.split('"')
    opened = all(not part or part[-1] == " " for part in parts[:-1:2])
    closed = all(not part or not part[0].isalnum() for part in parts[2::2])
    if len(parts) % 2 == 0 or not (opened and closed):
        sentence = "".join(parts)
    openings = len(re.findall(r"(?:^|\s)'", sentence))
    closings = len(re.findall(r"[.,!?;]'(?=\s|$)", sentence))
    if openings != closings:
        sentence = re.sub(r"(^|\s)'(?=\w)|(?<=[.,!?;])'(?=\s|$)", r"\1", sentence)
        if openings:
            sentence = re.sub(r"(?<=\w)'(?=\s|$|[.,!?;])", "", sentence)
    return " ".join(sentence.split())


def is_speakable(sentence: str) -> bool:
    """Whether a voice reads the sentence as written: plain words and simple numbers.

    It must have 4 to 40 words, start with a capital and end with a punctuation mark. It must not
    have words in capitals, single letters, symbols, letters outside ASCII, or numbers other than
    1 to 99, years and simple ordinals.
    """
    words = _WORD.findall(sentence)
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not _ALLOWED.fullmatch(sentence):
        return False
    if any(p.search(sentence) for p in (_CAPITALS, _FRAGMENT, _SHORTENED)):
        return False
    numbers = re.findall(r"[^\s]*\d[^\s]*", sentence)
    return all(_NUMBER.fullmatch(number.strip(",;:.!?'\"")) for number in numbers)


def is_readable(sentence: str) -> bool:
    """Whether a sentence of any language with Latin letters is simple enough for a voice.

    It must have 4 to 40 words, start with a capital, end with a punctuation mark, and have no
    digits, symbols, quotation marks or words in capitals.
    """
    words = sentence.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not _LETTERS.fullmatch(sentence):
        return False
    return sentence[0].isupper() and not any(len(w) > 1 and w.isupper() for w in words)


def read_list(text: str) -> list[tuple[int, str]]:
    """The readable sentences of a text with one a line, with their line numbers from 0.

    Typographic apostrophes and spaces become simple ones.
    """
    lines = [line.translate(_TYPOGRAPHY).strip() for line in text.split("\n")]
    return [(number, line) for number, line in enumerate(lines) if is_readable(line)]


def sentences_of(text: str) -> Iterator[tuple[int, str]]:
    """Yields the usable sentences of a document in order, with their indices among all sentences.

    A gap in the indices shows that a sentence was left out.
    """
    index = 0
    for paragraph in paragraphs(text):
        for raw in split_sentences(clean(paragraph)):
            sentence = balance_quotes(raw)
            if is_speakable(sentence):
                yield index, sentence
            index += 1


def normalized_words(text: str) -> list[str]:
    """The words in lower case without punctuation; hyphens split words, apostrophes do not."""
    return re.sub(r"[^\w ]|_", "", text.lower().replace("-", " ").replace("\n", " ")).split()


def ngrams(text: str, n: int = NGRAM) -> set[tuple[str, ...]]:
    """All sequences of `n` consecutive normalized words of a text."""
    words = normalized_words(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def excluded_ngrams(transcripts: Iterable[str], n: int = NGRAM) -> set[tuple[str, ...]]:
    """The n-grams of all given transcripts, which no sentence may contain."""
    return set().union(*(ngrams(transcript, n) for transcript in transcripts))
