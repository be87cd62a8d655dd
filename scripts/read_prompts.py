"""Reads the voice prompts of a telephone exchange into an audiofolder of real speech.

    apt-get download asterisk-core-sounds-fr asterisk-core-sounds-fr-g722
    for package in asterisk-core-sounds-fr*.deb; do dpkg -x $package asterisk; done
    python scripts/read_prompts.py asterisk/usr/share/asterisk/sounds/fr_CA_f_June \\
        --texts asterisk/usr/share/doc/asterisk-core-sounds-fr/core-sounds-fr.txt.gz \\
        --output prompts

Debian has Asterisk's prompts in English, French, Italian, Russian and Spanish, each read by one
person and with the texts (CC BY-SA 3.0, French: June Wallack); asterisk-prompt-fr-armelle is
another French voice, without texts. They are few minutes of a few speakers, but real speech, on
which synthetic speech can be checked. Prompts of fewer than four words and those with digits, which
can be written in several ways, are left out, as are repeated texts and sounds, whose text is a
description in brackets. Needs PyAV.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from speech_engines import to_16k

from baldwhisper_convert.data.augment import Audio
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.json_lines import write_json_lines

FEWEST_WORDS = 4
FORMATS = (".g722", ".gsm", ".wav")
SHORTEST = 0.5
"""Seconds; shorter prompts are no sentences."""


def decode(path: Path) -> Audio:
    """Decodes a prompt, which has no header but in WAV: the format follows from its name.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(stream)]
            rate = stream.rate
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error})") from error
    samples = np.concatenate(parts)
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768.0
    return to_16k(samples, rate)


def read_texts(path: Path) -> dict[str, str]:
    """The texts of prompts by name: lines `name: text`; comments begin with a semicolon.

    Raises:
        ValueError: no line has a text.
    """
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, words = line.partition(":")
        if colon and not line.startswith(";"):
            found[name.strip()] = re.sub(r"\s+", " ", words.strip(' \t."“”')).strip()
    if not found:
        raise ValueError(f"{path}: no line is `name: text`")
    return found


def prompts(folder: Path, texts: dict[str, str] | None) -> Iterator[tuple[Path, str]]:
    """The prompts of a folder with their texts, sorted by name; without texts all of them."""
    seen: set[str] = set()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in FORMATS):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if texts is None:
            yield path, ""
            continue
        text = texts.get(name, "")
        if len(text.split()) < FEWEST_WORDS or re.search(r"\d|^\[.*\]$", text):
            continue
        if text.lower() in seen:
            continue
        seen.add(text.lower())
        yield path, text


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sounds", type=Path, help="folder with .g722, .gsm or .wav files")
    parser.add_argument("--texts", type=Path, help="the list of their texts; without it: no text")
    parser.add_argument("--output", type=Path, required=True, help="the audiofolder")
    parser.add_argument("--speaker", help="default: name of the folder")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    try:
        texts = read_texts(arguments.texts) if arguments.texts else None
        arguments.output.mkdir(parents=True, exist_ok=True)
        for path, text in prompts(arguments.sounds, texts):
            samples = decode(path)
            if len(samples) < SHORTEST * SAMPLE_RATE:
                continue
            name = "-".join(path.relative_to(arguments.sounds).with_suffix(".flac").parts)
            soundfile.write(arguments.output / name, samples, SAMPLE_RATE, subtype="PCM_16")
            row = {"file_name": name, "text": text, "duration": len(samples) / SAMPLE_RATE}
            rows.append(row | {"speaker": arguments.speaker or arguments.sounds.name})
        if not rows:
            raise ValueError(f"{arguments.sounds}: no prompts that have a text; look at --texts")
    except (OSError, ValueError) as error:
        sys.exit(f"read_prompts: {error}")
    write_json_lines(arguments.output / "metadata.jsonl", rows)
    print(
        f"{arguments.output}: {len(rows)} prompts, {sum(r['duration'] for r in rows) / 60:.1f} min"
    )


if __name__ == "__main__":
    main()
