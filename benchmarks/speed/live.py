"""Live transcription: word errors, delay of confirmed words, and computation.

    python -m benchmarks.speed.live AUDIOFOLDER --model "tiny-en=" --seconds 1200 \\
        --output benchmarks/results/live.json

Clips are joined to recordings and fed at the speed of time, by a simulated clock that computation
advances: what "arrives" while a draft is decoded is fed together afterwards. The delay of a word is
from its end, by the word times of the whole recording, to the event that confirms it:
computation-unaware by the audio that had been fed, computation-aware by the clock.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.endpointing import LIVE_SPEECH
from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.machines import describe
from benchmarks.options import (
    Benchmark,
    language_option,
    model_or_bundled,
    models_option,
    normalizer_option,
    output_option,
)
from benchmarks.result_files import data_name, resume, write_json
from benchmarks.speed.long_recordings import recording

CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}
"""How computation is timed. The processor's time does not depend on what else the machine does; of
several threads it is the sum, so it is more than what passes."""
POLICIES = ("local-agreement", "alignatt")
BLOCK = 0.1
"""Seconds of audio that arrive at once."""


@dataclass(frozen=True)
class Said:
    """A word with the moment that matters: its end, or when it was confirmed."""

    word: str
    fed: float
    """Seconds of audio fed by then; of a spoken word, its end."""
    clock: float = 0.0
    """Seconds of the clock, which includes computation."""


@dataclass
class Run:
    """What came of feeding one recording."""

    text: str = ""
    words: list[Said] = field(default_factory=list)
    """Of the final texts, at the moment each was first confirmed."""
    n_drafts: int = 0
    n_confirmed: int = 0
    """Words confirmed by drafts."""
    n_revised: int = 0
    """Those of them that the final text does not have."""
    computation: float = 0.0
    """Seconds."""


def split(text: str) -> list[str]:
    """Words in lower case, without marks."""
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()


def matches(left: Sequence[str], right: Sequence[str]) -> dict[int, int]:
    """Places of equal words in two texts that are nearly the same, left to right."""
    blocks = difflib.SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    return {a + i: b + i for a, b, size in blocks for i in range(size)}


def delays(confirmed: Sequence[Said], spoken: Sequence[Said]) -> dict[str, Any]:
    """Mean and 95th percentile of the delays (seconds) of the words that both have.

    Args:
        confirmed: words of the final texts.
        spoken: words of the recording with their ends.
    """
    found = matches([one.word for one in spoken], [one.word for one in confirmed])
    pairs = [(spoken[a], confirmed[b]) for a, b in found.items()]
    unaware = [b.fed - a.fed for a, b in pairs]
    aware = [b.clock - a.fed for a, b in pairs]
    return {
        f"{name}_{kind}": float(value)
        for name, values in (("unaware", unaware), ("aware", aware))
        for kind, value in (("mean", np.mean(values)), ("p95", np.percentile(values, 95)))
    } | {"words": len(pairs)}


def stream(
    live: Any, samples: Samples, now: Callable[[], float]
) -> Iterator[tuple[list[Any], float, float, float]]:
    """Feeds a recording by the simulated clock.

    Args:
        live: takes the samples.
        samples: of the recording.
        now: seconds, by which computation is timed.

    Yields:
        Events, seconds fed, seconds of the clock, and seconds of computation.
    """
    total, fed, clock = len(samples) / SAMPLE_RATE, 0.0, 0.0
    while fed < total:
        clock = max(clock, min(fed + BLOCK, total))
        until = min(clock, total)
        block = samples[round(fed * SAMPLE_RATE) : round(until * SAMPLE_RATE)]
        began = now()
        events = live.feed(block)
        taken = now() - began
        fed, clock = until, clock + taken
        yield events, fed, clock, taken
    began = now()
    events = live.finish()
    taken = now() - began
    yield events, total, clock + taken, taken


def listen(live: Any, samples: Samples, now: Callable[[], float]) -> Run:
    """Feeds a recording as `stream` does, and records when each word was confirmed."""
    from baldwhisper_mlx.transcription.live_events import Draft, Utterance

    run, drafted = Run(), list[Said]()
    for events, fed, clock, taken in stream(live, samples, now):
        run.computation += taken
        for event in events:
            if isinstance(event, Draft):
                run.n_drafts += 1
                new = split(event.confirmed)[len(drafted) :]
                drafted += [Said(word, fed, clock) for word in new]
            elif isinstance(event, Utterance):
                final = split(event.text)
                earlier = matches(final, [one.word for one in drafted])
                run.words += [
                    drafted[earlier[i]] if i in earlier else Said(word, fed, clock)
                    for i, word in enumerate(final)
                ]
                run.n_confirmed += len(drafted)
                run.n_revised += len(drafted) - len(earlier)
                run.text += event.text
                drafted = []
    return run


def measure(
    loaded: Any,
    policy: Any,
    how: dict[str, Any],
    samples: Samples,
    now: Callable[[], float],
) -> tuple[Run, dict[str, Any]]:
    """One policy over one recording; the run, and what does not depend on a reference.

    `how` is the rest of the settings of `LiveTranscriber`.
    """
    from baldwhisper_mlx.transcription.live import LiveTranscriber

    live = LiveTranscriber(loaded, policy=policy, clock=now, **how)
    run = listen(live, samples, now)
    seconds = len(samples) / SAMPLE_RATE
    return run, {
        "drafts": run.n_drafts,
        "revised": run.n_revised / max(1, run.n_confirmed),
        "confirmed_by_drafts": (run.n_confirmed - run.n_revised) / max(1, len(run.words)),
        "computation": run.computation / seconds,
    }


def spoken_words(loaded: Any, samples: Samples, language: str) -> tuple[Any, list[Said]]:
    """The transcript of the whole recording, and its words with the times of their ends."""
    import baldwhisper_mlx

    transcript = baldwhisper_mlx.transcribe(
        samples, loaded, language=language, word_timestamps=True
    )
    return transcript, [
        Said(part, word.end)
        for segment in transcript.segments
        for word in segment.words or ()
        for part in split(word.word)
    ]


def line_of(title: str, row: dict[str, Any], found: dict[str, Any]) -> str:
    """What is printed of a policy.

    Args:
        title: its model and its name.
        row: its figures.
        found: those of the model.
    """
    return (
        f"{title}: WER {100 * row['wer']:.2f} % (offline {100 * found['offline_wer']:.2f}, with "
        f"vad {100 * found['offline_vad_wer']:.2f}), delay {row['unaware_mean']:.2f} s "
        f"(95 %: {row['unaware_p95']:.2f}), with computation {row['aware_mean']:.2f} "
        f"({row['aware_p95']:.2f}), computing {100 * row['computation']:.0f} % of the time, "
        f"{100 * row['revised']:.1f} % revised"
    )


@click.command(cls=Benchmark)
@click.argument("folder")
@models_option(required=False, bundled=True)
@click.option("--seconds", default=180.0, show_default=True, help="Length of the recording.")
@click.option("--policy", "chosen", type=click.Choice(POLICIES), multiple=True, default=POLICIES,
              show_default=True, help="How words are confirmed; repeatable.")  # fmt: skip
@click.option("--clock", type=click.Choice(list(CLOCKS)), default="processor", show_default=True,
              help="Time computation by the processor's time of all threads, or by what "
              "passes.")  # fmt: skip
@click.option("--interval", default=0.5, show_default=True,
              help="Least seconds of new speech between two drafts.")  # fmt: skip
@click.option("--pause", default=LIVE_SPEECH.min_silence_duration, show_default=True,
              help="Seconds of silence that end an utterance.")  # fmt: skip
@click.option("--frame-threshold", "thresholds", type=click.IntRange(min=0), multiple=True,
              default=(25,), show_default=True, help="Of AlignAtt; repeatable.")  # fmt: skip
@language_option
@normalizer_option
@output_option()
def main(
    folder: str,
    models: tuple[str, ...],
    seconds: float,
    chosen: tuple[str, ...],
    clock: str,
    interval: float,
    pause: float,
    thresholds: tuple[int, ...],
    language: str,
    normalizer: str,
    output: Path,
) -> None:
    """Transcribe a recording made of the clips of FOLDER live, by every policy.

    The models of an output file that exists are kept, but for those that are measured again.
    """
    import baldwhisper_mlx
    from baldwhisper_mlx.evaluation.normalizers import load_normalizer
    from baldwhisper_mlx.evaluation.scoring import score

    samples, reference = recording(folder, seconds)
    policies: dict[str, Any] = {}
    if "local-agreement" in chosen:
        policies["local-agreement"] = baldwhisper_mlx.LocalAgreement()
    if "alignatt" in chosen:
        policies |= {f"alignatt {n}": baldwhisper_mlx.AlignAtt(n) for n in thresholds}
    data = {"data": data_name(Path(folder)), "normalizer": normalizer}
    result = resume(output, data | {"models": {}}, "models")
    clean = load_normalizer(normalizer)

    def errors(text: str) -> float:
        words = score(reference, text, clean).words
        return words.errors / words.total

    for item in models or ("tiny-en=",):
        name, model = model_or_bundled(item)
        loaded = baldwhisper_mlx.load_model(model)
        offline, spoken = spoken_words(loaded, samples, language)
        offline_vad = baldwhisper_mlx.transcribe(samples, loaded, language=language, vad=True)
        found: dict[str, Any] = {
            "machine": describe(), "audio_seconds": len(samples) / SAMPLE_RATE,
            "interval": interval, "pause": pause, "clock": clock,
            "offline_wer": errors(offline.text), "offline_vad_wer": errors(offline_vad.text),
            "policies": {},
        }  # fmt: skip
        how = {
            "interval": interval, "language": language,
            "vad_options": baldwhisper_mlx.VadOptions(min_silence_duration=pause),
        }  # fmt: skip
        for label, policy in policies.items():
            run, row = measure(loaded, policy, how, samples, CLOCKS[clock])
            row = {"wer": errors(run.text)} | row | delays(run.words, spoken)
            found["policies"][label] = row
            click.echo(line_of(f"{name}, {label}", row, found))
        result["models"][name] = found
        write_json(output, result)


if __name__ == "__main__":
    main()
