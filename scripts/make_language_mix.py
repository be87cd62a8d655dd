"""Joins clips of several languages into recordings for `benchmarks.accuracy.languages_mixed`.

    python scripts/make_language_mix.py --english mini_librispeech/dev --unknown mboshi/dev \\
        --french fr-sentences.txt.gz --kokoro-model onnx/model_quantized.onnx \\
        --kokoro-voices voices --check whisper-base --output mix

English and the language that Whisper does not know are recordings. French and German are
synthesized by Kokoro-82M with its French voice (see speech_kokoro.py), German from the sentences
in german_sentences.txt, all from works in the public domain or written for this file. Kokoro never
learned German, so a sentence is used only if the model of --check, given its language, writes it
with a word error rate of at most 35 %: the benchmark is about the change of languages. The
folder gets FLAC files and recordings.jsonl with the turns of each; the same options make the same
recordings.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from language_turns import Samples, Utterance, at_level, join
from speech_engines import to_16k
from speech_kokoro import load_kokoro, read_voice

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.evaluation.scoring import score
from baldwhisper_mlx.output.json_lines import write_json_lines

RECORDINGS_FILE = "recordings.jsonl"
GERMAN = Path(__file__).with_name("german_sentences.txt")
MOST_ERRORS = 0.35
"""Word error rate up to which a synthesized sentence counts as understood."""
UNKNOWN = "unknown"
SHORTEST_TURN, LONGEST_TURN = 5.0, 30.0
MOST_PAUSE = 2.0
PHONEMES = {
    "fr": {},
    # What the French voice has no sound for, or another one.
    "de": {"ʏ": "y", "ɜ": "ɐ", "ɑː": "aː", "ts": "ʦ"},  # noqa: RUF001
}


def recorded(folder: Path, rng: np.random.Generator) -> Iterator[Utterance]:
    """The clips of a folder in random order."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").split("\n")
            if line]  # fmt: skip
    for place in rng.permutation(len(rows)):
        yield Utterance(load_audio(folder / rows[place]["file_name"]), rows[place]["text"])


class Synthesizer:
    """Kokoro's French voice, checked by a model.

    Args:
        model: Kokoro's ONNX file.
        voices: folder with ff_siwis.bin.
        check: model folder.
    """

    def __init__(self, model: Path, voices: Path, check: Path) -> None:
        self._kokoro = load_kokoro(model)
        self._voice = read_voice(voices / "ff_siwis.bin").astype(np.float32)
        self._check = baldwhisper_mlx.load_model(check)
        self._kokoro.tokenizer.phonemize("bonjour", "fr-fr")  # this points phonemizer to espeak-ng
        self._phonemize: Any = importlib.import_module("phonemizer").phonemize

    def utterances(self, language: str, texts: Sequence[str]) -> Iterator[Utterance]:
        """The sentences that the checking model understands."""
        normalize = load_normalizer("basic")
        for text in texts:
            samples = self._speak(text, language)
            written = baldwhisper_mlx.transcribe(
                samples, self._check, language=language, temperature=0.0
            )
            words = score(text, written.text, normalize).words
            print(f"{language} {words.errors}/{words.total} {text}", flush=True)
            if words.errors <= MOST_ERRORS * words.total:
                yield Utterance(samples, text)

    def _speak(self, text: str, language: str) -> Samples:
        code = {"fr": "fr-fr"}.get(language, language)
        phonemes = str(self._phonemize(text, code, preserve_punctuation=True, with_stress=True))
        for sound, replacement in PHONEMES[language].items():
            phonemes = phonemes.replace(sound, replacement)
        audio, rate = self._kokoro.create(
            phonemes.strip(), voice=self._voice, speed=0.95, is_phonemes=True
        )
        samples: Samples = to_16k(audio, rate)
        return samples


def turn_of(utterances: Iterator[Utterance], shortest: float) -> Utterance:
    """Utterances joined until they are as long as `shortest` seconds, at one level.

    Raises:
        ValueError: there are no more utterances.
    """
    parts: list[Utterance] = []
    while sum(len(part.samples) for part in parts) < shortest * SAMPLE_RATE:
        part = next(utterances, None)
        if part is None:
            raise ValueError("too few utterances for the recordings: give more, or fewer --count")
        if len(part.samples) <= (LONGEST_TURN - shortest) * SAMPLE_RATE:
            parts.append(part)
    samples = np.concatenate([part.samples for part in parts])
    samples = at_level(samples)
    return Utterance(samples, " ".join(part.text for part in parts))


def sequence(rng: np.random.Generator, number: int) -> list[str]:
    """Languages of the turns of a recording, none twice in a row; an unknown one in every third."""
    known = ["en", "fr", "de"]
    languages: list[str] = []
    for place in range(int(rng.integers(6, 9))):
        choice = [one for one in known if one != (languages or [""])[-1]]
        languages.append(UNKNOWN if number % 3 == 2 and place == 2 else str(rng.choice(choice)))
    return languages


def french_sentences(path: Path, rng: np.random.Generator) -> list[str]:
    """Sentences of 7 to 20 words in random order, one a line in the file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file if 7 <= len(line.split()) <= 20]
    return [lines[place] for place in rng.permutation(len(lines))]


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, text in (
        ("english", "folder of English speech with a metadata.jsonl"),
        ("unknown", "folder of speech in a language that Whisper does not know"),
        ("french", "French sentences, one a line (.txt.gz)"),
        ("kokoro-model", "Kokoro-82M as an ONNX file"),
        ("kokoro-voices", "its voices, a .bin file each"),
        ("check", "model folder of whisper-base"),
        ("output", "folder of the recordings"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--german", type=Path, default=GERMAN, help="sentences, one a line")
    parser.add_argument("--count", type=int, default=10, help="recordings (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    synthesizer = Synthesizer(arguments.kokoro_model, arguments.kokoro_voices, arguments.check)
    german = arguments.german.read_text("utf-8").splitlines()
    pools = {
        "en": recorded(arguments.english, rng),
        UNKNOWN: recorded(arguments.unknown, rng),
        "fr": synthesizer.utterances("fr", french_sentences(arguments.french, rng)),
        "de": synthesizer.utterances("de", german),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number in range(arguments.count):
        languages = sequence(rng, number)
        turns = [(one, turn_of(pools[one], rng.uniform(SHORTEST_TURN, 10))) for one in languages]
        pauses = list(rng.uniform(0, MOST_PAUSE, len(turns) - 1))
        samples, placed = join(turns, pauses, rng)
        name = f"{number:02}.flac"
        soundfile.write(arguments.output / name, samples, SAMPLE_RATE, subtype="PCM_16")
        rows.append({"file_name": name, "duration": len(samples) / SAMPLE_RATE,
                     "turns": [asdict(turn) for turn in placed]})  # fmt: skip
        write_json_lines(arguments.output / RECORDINGS_FILE, rows)
        print(f"{name}: {len(samples) / SAMPLE_RATE:.0f} s, {' '.join(languages)}", flush=True)


if __name__ == "__main__":
    main()
