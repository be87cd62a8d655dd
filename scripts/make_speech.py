"""Synthesizes speech from sentences into an audiofolder for training.

    python scripts/make_speech.py --texts texts/sentences.jsonl --output speech --hours 10 \\
        --exclude dev/metadata.jsonl

The folder gets FLAC files (16 kHz, mono, 16 bits) and metadata.jsonl with a line per file:
file_name, text, duration, speaker, source, document, index, run, position, voice and augmentation.
The clips of a run are consecutive sentences in one voice and one room. Sentences that share seven
consecutive words with a transcript given to --exclude are left out. Interrupted runs resume when
you rerun the command; with more --hours it adds to the folder. The script needs numpy, soundfile,
soxr and the chosen engines (see speech_engines.py).

    python scripts/make_speech.py --texts texts/sentences.jsonl --output speech --hours 10 \\
        --engines kokoro --kokoro-model onnx/model_quantized.onnx --kokoro-voices voices

uses Kokoro-82M (pip install kokoro-onnx), with the files of onnx-community/Kokoro-82M-v1.0-ONNX on
the Hugging Face Hub. It is slower than flite and espeak-ng (0.4 s of a CPU core for a second of
speech), sounds more natural and has hundreds of speakers: English voices and mixtures of two.

    python scripts/make_speech.py --language fr --texts sentences.txt --output speech --hours 1 \\
        --kokoro-model onnx/model_quantized.onnx --kokoro-voices voices

makes French: Kokoro's French voice and its mixtures with English ones. With --engines pico it is
another voice, SVOX Pico (pip install py-nanotts), at 0.3 s of CPU time a minute. --texts may be
a text with a sentence a line too, also compressed (.txt.gz).
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import sys
import threading
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from speech_engines import ENGINES, VOICES, VoiceRange, check_engines, speak
from speech_kokoro import (
    FRENCH_VOICE,
    UNCLEAR_VOICES,
    Kokoro,
    english_voices,
    french_ranges,
    voice_ranges,
)
from speech_runs import (
    Run,
    Speak,
    build_runs,
    digest,
    drop_excluded,
    load_sentences,
    make_run,
)
from speech_text import excluded_ngrams

from baldwhisper_mlx.files import write_atomically
from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines, write_json_lines

METADATA_FILE = "metadata.jsonl"
SKIPPED_FILE = "skipped.jsonl"
SETTINGS_FILE = "settings.json"

Made = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def read_transcripts(paths: list[Path]) -> list[str]:
    """The "text" fields of metadata files.

    Raises:
        ValueError: a file is missing, or a line has no text.
    """
    texts = []
    for path in paths:
        try:
            texts += [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f'--exclude {path}: not a JSONL file with a "text" in each line ({error!r})'
            ) from error
    return texts


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a new folder, or compares them with those of an existing one.

    Raises:
        ValueError: the folder was made with other texts, other voices or another seed.
    """
    path = folder / SETTINGS_FILE
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        if different := [key for key in settings if settings[key] != before.get(key)]:
            raise ValueError(
                f"{folder} was made with other {', '.join(different)}; give another --output, "
                "or the same options as before"
            )
        return
    write_atomically(path, json.dumps(settings, indent=2) + "\n")


def complete_rows(runs: list[Run], folder: Path) -> Made:
    """The metadata and the skipped sentences of runs that are listed with all their sentences.

    The rows of others, whose listing was interrupted, are removed from the files.
    """
    paths = (folder / METADATA_FILE, folder / SKIPPED_FILE)
    try:
        listed = [read_json_lines(path) for path in paths]
    except ValueError as error:
        raise ValueError(f"{error}; delete the line, and what it lists is made again") from None
    counts = Counter(row["run"] for rows in listed for row in rows)
    done = {run.number for run in runs if counts[run.number] == len(run.sentences)}
    rows, skips = ([row for row in rows if row["run"] in done] for rows in listed)
    for path, before, kept in zip(paths, listed, (rows, skips), strict=True):
        if len(kept) < len(before):
            write_json_lines(path, kept)
    return rows, skips


def _exit_with_parent() -> None:
    """Ends this process when its parent dies; it would wait for work forever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def generate(
    runs: list[Run],
    folder: Path,
    hours: float,
    seed: int,
    voices: list[VoiceRange],
    speak: Speak,
    jobs: int,
    *,
    clean: bool = False,
) -> tuple[float, int]:
    """Makes runs in order until the folder holds `hours` of speech or there are no more runs.

    The rows of a run are appended when all its files are written, so metadata lists complete files
    only. A run that is not listed with all its sentences is made again, with the same result.

    Args:
        runs: all runs; those listed in the folder's metadata are skipped.
        folder: the audiofolder.
        hours: of speech in the folder at the end.
        seed: of the voices and augmentations.
        voices: to draw from.
        speak: see `make_run`; must be picklable if jobs > 1.
        jobs: number of processes.
        clean: see `make_run`.

    Returns:
        Hours of speech in the folder and the number of skipped sentences, including earlier calls.
    """
    rows, skips = complete_rows(runs, folder)
    done = {row["run"] for row in (*rows, *skips)}
    seconds, skipped = sum(row["duration"] for row in rows), len(skips)
    waiting = deque(run for run in runs if run.number not in done)
    pending: deque[Future[Made]] = deque()
    with ProcessPoolExecutor(jobs, initializer=_exit_with_parent) as pool:
        # Runs that are in progress when the hours are reached are kept too.
        while pending or (waiting and seconds < hours * 3600):
            while waiting and len(pending) < 2 * jobs and seconds < hours * 3600:
                run = waiting.popleft()
                pending.append(pool.submit(make_run, run, folder, seed, voices, speak, clean))
            new, failed = pending.popleft().result()
            append_json_lines(folder / SKIPPED_FILE, failed)
            append_json_lines(folder / METADATA_FILE, new)
            seconds, skipped = seconds + sum(row["duration"] for row in new), skipped + len(failed)
            print(f"\r{seconds / 3600:.2f} of {hours:g} h, {skipped} skipped", end="", flush=True)
    print()
    return seconds / 3600, skipped


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--texts",
        type=Path,
        required=True,
        help="sentences.jsonl of get_texts.py, or a text with a sentence a line (.txt, .txt.gz)",
    )
    parser.add_argument("--language", choices=sorted(VOICES), default="en")
    parser.add_argument("--output", type=Path, required=True, help="the audiofolder")
    parser.add_argument("--hours", type=float, required=True, help="hours of speech at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], metavar="METADATA.jsonl")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes (default 2)")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=[*sorted(ENGINES), "kokoro"],
        help="default: flite and espeak-ng for English, kokoro for French",
    )
    parser.add_argument(
        "--clean", action="store_true", help="no rooms, noise and speed, for held-out speech"
    )
    parser.add_argument(
        "--kokoro-model", type=Path, metavar="MODEL.onnx", help="Kokoro-82M as an ONNX file"
    )
    parser.add_argument(
        "--kokoro-voices", type=Path, metavar="FOLDER", help="its voices, a .bin file each"
    )
    parser.add_argument(
        "--kokoro-skip",
        nargs="*",
        default=list(UNCLEAR_VOICES),
        metavar="VOICE",
        help=f"voices to leave out (default {' '.join(UNCLEAR_VOICES)}, which are often "
        "misunderstood; without a name: none)",
    )
    arguments = parser.parse_args()
    if arguments.engines is None:
        arguments.engines = {"en": ["flite", "espeak-ng"], "fr": ["kokoro"]}[arguments.language]
    return arguments


def choose_voices(arguments: argparse.Namespace) -> tuple[list[VoiceRange], Speak, dict[str, Any]]:
    """Checks the chosen engines and lists their voices.

    Returns:
        The voices, the function that speaks with them, and the settings of the folder.

    Raises:
        RuntimeError: an engine is not installed.
        ValueError: Kokoro's files are not given or not usable.
        OSError: they cannot be read.
    """
    known = [voice for voice in VOICES[arguments.language] if voice.engine in arguments.engines]
    voiceless = set(arguments.engines) - {voice.engine for voice in known} - {"kokoro"}
    if voiceless:
        raise ValueError(
            f"--engines {' '.join(sorted(voiceless))}: no voice for --language {arguments.language}"
        )
    check_engines({engine for engine in arguments.engines if engine in ENGINES})
    voices, engines = known, dict(ENGINES)
    # Settings of a folder that is as before have no new keys, so that it can be continued.
    settings: dict[str, Any] = {"clean": True} if arguments.clean else {}
    if "kokoro" in arguments.engines:
        if arguments.kokoro_model is None or arguments.kokoro_voices is None:
            raise ValueError(
                "--engines kokoro needs --kokoro-model and --kokoro-voices; both are in "
                "onnx-community/Kokoro-82M-v1.0-ONNX on the Hugging Face Hub"
            )
        names = english_voices(arguments.kokoro_voices, arguments.kokoro_skip)
        french = arguments.language == "fr"
        kokoro = Kokoro(arguments.kokoro_model, arguments.kokoro_voices, arguments.language)
        settings["kokoro"] = kokoro.check([FRENCH_VOICE, *names] if french else names)
        voices += french_ranges(names) if french else voice_ranges(names)
        engines["kokoro"] = kokoro
    settings |= {"seed": arguments.seed, "voices": [repr(voice) for voice in voices]}
    return voices, functools.partial(speak, engines=engines), settings


def main() -> None:
    """Command line: see the module's docstring."""
    arguments = _arguments()
    try:
        voices, speak_with, settings = choose_voices(arguments)
        excluded = excluded_ngrams(read_transcripts(arguments.exclude))
        sentences, dropped = drop_excluded(load_sentences(arguments.texts), excluded)
        print(f"{len(sentences)} sentences; {dropped} left out because of --exclude")
        arguments.output.mkdir(parents=True, exist_ok=True)
        check_settings(arguments.output, {**settings, "sentences": digest(sentences)})
        hours, skipped = generate(
            build_runs(sentences, arguments.seed),
            arguments.output,
            arguments.hours,
            arguments.seed,
            voices,
            speak_with,
            arguments.jobs,
            clean=arguments.clean,
        )
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"make_speech: {error}")
    print(f"{arguments.output}: {hours:.2f} h, {skipped} sentences skipped (see {SKIPPED_FILE})")
    if hours < arguments.hours:
        sys.exit(f"make_speech: the texts are enough for {hours:.2f} of {arguments.hours:g} h only")


if __name__ == "__main__":
    main()
