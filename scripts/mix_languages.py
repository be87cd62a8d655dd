"""Joins clips of two languages into clips in which speakers change between them.

    python scripts/mix_languages.py MBOSHI/train FRENCH --languages ln fr --count 800 \\
        --output speech/switched

Half of the clips (--within) change the language inside a sentence: a clip of the first language, a
phrase of the second, a clip of the first, without a pause between. The phrases are short clips and
parts of longer ones between their pauses, where these agree with the punctuation of the text (see
language_turns.py). The others are two to four clips with pauses between, in turn of each language.
All parts have the same level.

Both sources are what `baldwhisper-convert prepare --data` takes, and so is the result, an
audiofolder: FLAC files and metadata.jsonl, with the whole text, and in `turns` the start, end,
language and text of each part. `prepare` labels such clips under the token of one language, or with
--set language_tokens=turns with a token wherever the language changes. The same options make the
same clips.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from language_turns import Turn, Utterance, at_level, cut_at_pauses, faded, join, trimmed

from baldwhisper_convert.data.utterances import BadRows, read_utterances
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.json_lines import write_json_lines

LONGEST = 28.0
"""Seconds of a clip; Whisper's windows have 30."""
LONGEST_PHRASE = 3.0
TRIES = 100
"""Draws of a clip, until one fits into a window."""
GAP = (0.0, 0.08)
"""Seconds between the parts of a sentence."""
PAUSES = (0.15, 0.8)
"""Seconds between clips."""


@dataclass(frozen=True)
class Said:
    """A part of a clip and who speaks."""

    utterance: Utterance
    speaker: str


class Pool:
    """The clips of one language, in an endless random order: every one once, then again.

    Args:
        source: a folder, list or Hub id.
        language: code.
        rng: of the order.
        limit: how many clips are read at most.

    Raises:
        ValueError: there are none.
    """

    def __init__(
        self, source: str, language: str, rng: np.random.Generator, limit: int | None = None
    ) -> None:
        self.language, self._rng = language, rng
        rows = list(read_utterances(source, bad=BadRows(allowed=True, say=print), say=print))
        if not rows:
            raise ValueError(f"{source}: no clips")
        order = rng.permutation(len(rows))[:limit]
        self._rows = [rows[place] for place in order]
        self._phrases: list[Said] = []
        self._clips = self._endless()

    def _endless(self) -> Iterator[Said]:
        spoken = True
        while spoken:
            spoken = False
            for place in self._rng.permutation(len(self._rows)):
                row = self._rows[place]
                speech = trimmed(row.samples())
                if len(speech):
                    spoken = True
                    yield Said(Utterance(at_level(speech), row.text), row.group)
        raise ValueError(f"no clip in {self.language} has speech")

    def clip(self) -> Said:
        """The next clip, without silence at its ends."""
        return next(self._clips)

    def phrase(self) -> Said:
        """The next short clip, or part of a longer one.

        Raises:
            ValueError: none of the clips is short or can be cut.
        """
        for _ in range(len(self._rows) + 1):
            if self._phrases:
                return self._phrases.pop()
            clip = self.clip()
            parts = cut_at_pauses(clip.utterance)
            self._phrases = [
                Said(Utterance(at_level(part.samples), part.text), clip.speaker)
                for part in parts
                if 0 < len(part.samples) <= LONGEST_PHRASE * SAMPLE_RATE
            ]
            self._rng.shuffle(self._phrases)
        raise ValueError(
            f"no clip in {self.language} is at most {LONGEST_PHRASE:g} s long, or has pauses that "
            "agree with its punctuation"
        )


def within_sentence(first: Pool, second: Pool) -> list[tuple[str, Said]]:
    """A phrase of the second language between two clips of the first, of one speaker if possible.

    The first speaker is who says the first clip; a few others are tried for the last one.
    """
    start, end = first.clip(), first.clip()
    for _ in range(5):
        if end.speaker == start.speaker:
            break
        end = first.clip()
    parts = [(first.language, start), (second.language, second.phrase()), (first.language, end)]
    return parts


def at_pauses(first: Pool, second: Pool, rng: np.random.Generator) -> list[tuple[str, Said]]:
    """Two to four whole clips, in turn of each language; either begins."""
    pools = [first, second] if rng.random() < 0.5 else [second, first]
    count = int(rng.integers(2, 5))
    return [(pools[i % 2].language, pools[i % 2].clip()) for i in range(count)]


def shortened(parts: list[tuple[str, Said]], pause: float) -> list[tuple[str, Said]]:
    """As many of the parts as fit into a window, pauses included."""
    kept: list[tuple[str, Said]] = []
    seconds = 0.0
    for language, said in parts:
        seconds += len(said.utterance.samples) / SAMPLE_RATE + (pause if kept else 0)
        if seconds > LONGEST:
            break
        kept.append((language, said))
    return kept


def make_clip(
    number: int, first: Pool, second: Pool, within: float, rng: np.random.Generator
) -> tuple[Any, dict[str, Any]]:
    """One clip: its samples, and its row without the file name.

    Raises:
        ValueError: no phrases, or clips that are too long.
    """
    inside = bool(rng.random() < within)
    bounds = GAP if inside else PAUSES
    for _ in range(TRIES):
        parts = within_sentence(first, second) if inside else at_pauses(first, second, rng)
        parts = shortened(parts, bounds[1])
        if len({language for language, _ in parts}) == 2:
            break
    else:
        raise ValueError(f"the clips are too long: two languages do not fit into {LONGEST:g} s")
    turns = [
        (language, Utterance(faded(said.utterance.samples), said.utterance.text))
        for language, said in parts
    ]
    samples, placed = join(turns, list(rng.uniform(*bounds, len(turns) - 1)), rng)
    speakers = list(dict.fromkeys(said.speaker for _, said in parts))
    row = {
        "text": " ".join(turn.text for turn in placed),
        "duration": round(len(samples) / SAMPLE_RATE, 3),
        "speaker": "+".join(speakers) or f"mix-{number}",
        "change": "within" if inside else "pauses",
        "turns": [asdict(turn) for turn in placed],
    }
    return samples, row


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """How much there is of each kind and language."""
    seconds: dict[str, float] = {}
    for row in rows:
        for turn in (Turn(**turn) for turn in row["turns"]):
            seconds[turn.language] = seconds.get(turn.language, 0) + turn.end - turn.start
    inside = sum(row["change"] == "within" for row in rows)
    spoken = ", ".join(f"{language} {s / 60:.1f} min" for language, s in seconds.items())
    return f"{len(rows)} clips, {inside} that change inside a sentence; {spoken}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("first", help="speech in the language that sentences are in")
    parser.add_argument("second", help="speech in the other language")
    parser.add_argument(
        "--languages", nargs=2, required=True, metavar="CODE", help="their codes, such as ln fr"
    )
    parser.add_argument("--output", type=Path, required=True, help="the audiofolder, new")
    parser.add_argument("--count", type=int, required=True, help="clips to make")
    parser.add_argument(
        "--within", type=float, default=0.5, help="share that changes inside a sentence (0.5)"
    )
    parser.add_argument("--limit", type=int, help="use at most so many clips of each source")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Command line: see the module's docstring."""
    arguments = _arguments()
    rng = np.random.default_rng(arguments.seed)
    try:
        if arguments.output.exists() and any(arguments.output.iterdir()):
            raise ValueError(f"--output {arguments.output}: not empty; give a new folder")
        if not 0 <= arguments.within <= 1 or arguments.count < 1:
            raise ValueError("--within must be 0 to 1 and --count at least 1")
        if len(set(arguments.languages)) < 2:
            raise ValueError("--languages must be two languages that differ")
        first, second = (
            Pool(source, language, rng, arguments.limit)
            for source, language in zip(
                (arguments.first, arguments.second), arguments.languages, strict=True
            )
        )
        arguments.output.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        for number in range(arguments.count):
            samples, row = make_clip(number, first, second, arguments.within, rng)
            name = f"{number:05}.flac"
            soundfile.write(arguments.output / name, samples, SAMPLE_RATE, subtype="PCM_16")
            rows.append({"file_name": name, **row})
    except (OSError, ValueError) as error:
        sys.exit(f"mix_languages: {error}")
    write_json_lines(arguments.output / "metadata.jsonl", rows)
    print(f"{arguments.output}: {summary(rows)}")


if __name__ == "__main__":
    main()
