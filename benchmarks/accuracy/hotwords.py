"""Hotwords: rare words that a model misses, with and without them in a list of names.

    python -m benchmarks.accuracy.hotwords --model "whisper-base=DIR" --data DIR \\
        --text sentences.txt.gz --output benchmarks/results/hotwords.json

A word of a reference is rare if the sentences of `--text` have it at most `--most` times. Clips in
which the model misses one are transcribed again with a list of names: the missed words, filled up
with distractors, which are missed words of other clips; and with a list of distractors alone, as if
nobody named in it were mentioned.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.evaluation.scoring import Edits, score
from benchmarks.options import (
    Benchmark,
    data_option,
    limit_option,
    models_option,
    named_model,
    output_option,
)
from benchmarks.result_files import data_name, write_json

NORMALIZER = "basic"
SHORTEST = 4
"""Letters of a rare word; shorter ones are mostly abbreviations."""


@dataclass(frozen=True)
class Clip:
    """A clip and its rare words."""

    name: str
    samples: Samples
    reference: str
    rare: tuple[str, ...]


def frequencies(path: Path) -> Counter[str]:
    """How often each word occurs in a text, one sentence a line, perhaps compressed by gzip."""
    normalize, counts = load_normalizer(NORMALIZER), Counter[str]()
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    for line in text.splitlines():
        counts.update(normalize(line).split())
    return counts


def rare_words(reference: str, counts: Counter[str], most: int) -> tuple[str, ...]:
    """The words of a normalized text that occur at most so often, each once, in their order."""
    words = dict.fromkeys(reference.split())
    return tuple(
        word for word in words if len(word) >= SHORTEST and word.isalpha() and counts[word] <= most
    )


def missed(words: Iterable[str], hypothesis: str) -> list[str]:
    """The words that a normalized hypothesis does not have."""
    written = set(hypothesis.split())
    return [word for word in words if word not in written]


def lists_of_names(
    targets: Sequence[Sequence[str]], references: Sequence[str], size: int
) -> Iterator[tuple[list[str], list[str]]]:
    """For each clip its targets filled up with distractors, and distractors alone.

    Args:
        targets: words that each clip's list has to have.
        references: normalized texts of the clips; no distractor is in that of its clip.
        size: names in a list.
    """
    pool = list(dict.fromkeys(word for words in targets for word in words))
    for number, (words, reference) in enumerate(zip(targets, references, strict=True)):
        own = set(reference.split())
        # From another place for every clip, so that all words are distractors about as often.
        start = number * size % len(pool)
        others = [word for word in pool[start:] + pool[:start] if word not in own][:size]
        kept = list(words[:size])
        yield sorted(kept + others[: size - len(kept)]), sorted(others)


def hotwords_of(words: Sequence[str]) -> str:
    """A list as users write it."""
    return ", ".join(word.capitalize() for word in words)


def measure(
    transcribe: Callable[[Samples, str | None], str], clips: Sequence[Clip], most: int, size: int
) -> dict[str, Any]:
    """Recall of the rare words and word errors without hotwords and with both lists.

    Args:
        transcribe: from samples and hotwords to text.
        clips: those with rare words.
        most: clips that are transcribed again.
        size: names in a list.
    """
    normalize = load_normalizer(NORMALIZER)
    chosen, plain, targets = [], [], []
    for clip in clips:
        text = normalize(transcribe(clip.samples, None))
        if lost := missed(clip.rare, text):
            chosen.append(clip)
            plain.append(text)
            targets.append(lost)
        if len(chosen) == most:
            break
    if not chosen:
        raise ValueError("the model misses no rare word of these clips")
    references = [clip.reference for clip in chosen]
    named = list(lists_of_names(targets, references, size))
    lists: dict[str, list[list[str]]] = {
        "without": [[] for _ in chosen],
        "hotwords": [names for names, _ in named],
        "distractors only": [others for _, others in named],
    }
    rows = {}
    for way, names in lists.items():
        texts = plain
        if way != "without":
            texts = [
                normalize(transcribe(clip.samples, hotwords_of(own)))
                for clip, own in zip(chosen, names, strict=True)
            ]
        rows[way] = _row(chosen, texts, targets, names)
        click.echo(f"{way}: {rows[way]}")
    examples = [
        {"clip": clip.name, "targets": lost, "list": names}
        for clip, lost, (names, _) in zip(chosen, targets, named, strict=True)
    ]
    return {"clips": len(chosen), "rows": rows, "lists": examples}


def _row(
    clips: Sequence[Clip],
    texts: Sequence[str],
    targets: Sequence[Sequence[str]],
    names: Sequence[Sequence[str]],
) -> dict[str, Any]:
    normalize = load_normalizer("none")
    edits = [
        score(clip.reference, text, normalize).words
        for clip, text in zip(clips, texts, strict=True)
    ]
    total = _sum(edits)
    rare = [word for clip in clips for word in clip.rare]
    n_targets = sum(map(len, targets))
    false = [
        word
        for clip, text, own in zip(clips, texts, names, strict=True)
        for word in own
        if word in text.split() and word not in clip.reference.split()
    ]
    return {
        "targets": n_targets,
        "targets_written": n_targets
        - sum(len(missed(own, text)) for own, text in zip(targets, texts, strict=True)),
        "rare_words": len(rare),
        "rare_words_written": len(rare)
        - sum(len(missed(clip.rare, text)) for clip, text in zip(clips, texts, strict=True)),
        "distractors": sum(
            word not in clip.reference.split()
            for clip, own in zip(clips, names, strict=True)
            for word in own
        ),
        "distractors_written": false,
        "wer": round(100 * total.errors / total.total, 2),
        "insertions": total.insertions,
    }


def _sum(edits: Sequence[Edits]) -> Edits:
    return Edits(
        sum(one.hits for one in edits),
        sum(one.substitutions for one in edits),
        sum(one.deletions for one in edits),
        sum(one.insertions for one in edits),
    )


@click.command(cls=Benchmark)
@models_option()
@data_option(multiple=True)
@click.option("--text", required=True, metavar="FILE",
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Sentences, one a line, that tell which words are rare.")  # fmt: skip
@click.option("--most", type=click.IntRange(min=0), default=1, show_default=True,
              help="A word that occurs at most so often in them is rare.")  # fmt: skip
@click.option("--clips", "n_clips", type=click.IntRange(min=1), default=50, show_default=True,
              help="Clips of each model in which it misses a rare word.")  # fmt: skip
@click.option("--names", type=click.IntRange(min=1), default=5, show_default=True,
              help="Names in each list.")  # fmt: skip
@limit_option
@output_option()
def main(
    models: tuple[str, ...],
    data: tuple[Path, ...],
    text: Path,
    most: int,
    n_clips: int,
    names: int,
    limit: int | None,
    output: Path,
) -> None:
    """Transcribe clips with rare words without hotwords, and with two lists of them."""
    import baldwhisper_mlx

    counts = frequencies(text)
    clips = list(_clips(data, counts, most, limit))
    result: dict[str, Any] = {
        "data": [data_name(folder) for folder in data],
        "text": text.name,
        "most": most,
        "names": names,
        "clips_with_rare_words": len(clips),
        "models": {},
    }
    for item in models:
        name, folder = named_model(item)
        loaded = baldwhisper_mlx.load_model(folder)

        def transcribe(samples: Samples, hotwords: str | None, loaded: Any = loaded) -> str:
            options: dict[str, Any] = {"language": "en", "hotwords": hotwords}
            return baldwhisper_mlx.transcribe(samples, loaded, **options).text

        result["models"][name] = measure(transcribe, clips, n_clips, names)
        write_json(output, result)


def _clips(
    data: Sequence[Path], counts: Counter[str], most: int, limit: int | None
) -> Iterator[Clip]:
    from baldwhisper_mlx.evaluation.dataset import Source, Speech

    normalize = load_normalizer(NORMALIZER)
    for folder in data:
        for clip in Speech(Source(name=str(folder), limit=limit)):
            reference = normalize(clip.text)
            if rare := rare_words(reference, counts, most):
                yield Clip(f"{data_name(folder)}/{clip.name}", clip.samples(), reference, rare)


if __name__ == "__main__":
    main()
