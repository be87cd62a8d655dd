"""The same three clips of speech in every layout in which labelled speech is published."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.support.tiny_speech import sound

RATE = 48_000
TEXTS = ('"Well," he said', "null", "naïve café")
SPEAKERS = ("a", "a", "b")
SECONDS = (0.4, 0.5, 0.6)


def clip(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A clip at 48 kHz, from 16 kHz by repetition."""
    return np.repeat(sound(SECONDS[number], number), RATE // 16_000)


def wav(number: int) -> bytes:
    """A clip as a file."""
    file = io.BytesIO()
    soundfile.write(file, clip(number), RATE, format="WAV")
    return file.getvalue()


def files(folder: Path, suffix: str = ".wav") -> list[Path]:
    """Writes the clips as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip_{number}{suffix}" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(wav(number))
    return paths


def common_voice(folder: Path) -> Path:
    """TSV without quoting, audio in `clips`, names without their ending, Windows line ends."""
    files(folder / "clips", ".mp3")  # the content decides what it is, not the name
    lines = ["client_id\tpath\tsentence\tup_votes"]
    lines += [f"{SPEAKERS[i]}\tclip_{i}\t{TEXTS[i]}\t2" for i in range(3)]
    (folder / "test.tsv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    return folder


def common_voice_list(folder: Path) -> Path:
    """The list itself."""
    return common_voice(folder) / "test.tsv"


def _columns(audio: list[Any]) -> dict[str, list[Any]]:
    return {"audio": audio, "transcription": list(TEXTS), "speaker_id": list(SPEAKERS)}


def _dataset(audio: list[Any]) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_dict(_columns(audio))


def _typed(audio: list[Any]) -> Any:
    import datasets

    # As published: a column that `datasets` would decode with torchcodec.
    return _dataset(audio).cast_column("audio", datasets.Audio())


def _content() -> list[dict[str, Any]]:
    return [{"bytes": wav(i), "path": f"clip_{i}.wav"} for i in range(3)]


def parquet_folder(folder: Path) -> Path:
    """A local copy of a Hub dataset."""
    (folder / "data").mkdir(parents=True)
    _typed(_content()).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def parquet_file(folder: Path) -> Path:
    """One file, with the paths of the audio beside it."""
    audio = [{"bytes": None, "path": path.name} for path in files(folder)]
    _dataset(audio).to_parquet(folder / "all.parquet")
    return folder / "all.parquet"


def parquet_arrays(folder: Path) -> Path:
    """Arrays at 48 kHz, as `datasets` gives decoded audio."""
    folder.mkdir(parents=True)
    audio = [{"array": clip(i).tolist(), "sampling_rate": RATE} for i in range(3)]
    _dataset(audio).to_parquet(folder / "arrays.parquet")
    return folder / "arrays.parquet"


def bare_arrays(folder: Path) -> Path:
    """Arrays in a column beside their rate, written by pandas."""
    import pandas

    folder.mkdir(parents=True)
    table = pandas.DataFrame(_columns([clip(i) for i in range(3)]) | {"sampling_rate": RATE})
    table.to_parquet(folder / "bare.parquet")
    return folder / "bare.parquet"


def saved(folder: Path) -> Path:
    """`Dataset.save_to_disk`."""
    _typed(_content()).save_to_disk(folder)
    return folder


def saved_splits(folder: Path) -> Path:
    """`DatasetDict.save_to_disk`."""
    import datasets

    other = _typed(_content()).select([2])
    datasets.DatasetDict({"train": other, "test": _typed(_content())}).save_to_disk(folder)
    return folder


def kaldi(folder: Path) -> Path:
    """`data/test` of a recipe, whose paths are relative to the recipe."""
    paths = files(folder / "audio")
    data = folder / "data" / "test"
    data.mkdir(parents=True)
    tables: dict[str, list[str]] = {
        "wav.scp": [f"u{i} audio/{path.name}" for i, path in enumerate(paths)],
        "text": [f"u{i} {TEXTS[i]}" for i in range(3)],
        "utt2spk": [f"u{i} {SPEAKERS[i]}" for i in range(3)],
    }
    for name, lines in tables.items():
        (data / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return data


def kaldi_segments(folder: Path) -> Path:
    """Segments of one recording, in a folder of splits."""
    data = folder / "test"
    data.mkdir(parents=True)
    soundfile.write(data / "all.wav", np.concatenate([clip(i) for i in range(3)]), RATE)
    ends = np.cumsum(SECONDS)
    starts = [0.0, *ends[:-1]]
    tables: dict[str, list[str]] = {
        "wav.scp": ["rec all.wav"],
        "text": [f"u{i} {TEXTS[i]}" for i in range(3)],
        "utt2spk": [f"u{i} {SPEAKERS[i]}" for i in range(3)],
        "segments": [f"u{i} rec {starts[i]:.2f} {ends[i]:.2f}" for i in range(3)],
    }
    tables["segments"][-1] = f"u2 rec {starts[2]:.2f} -1"
    for name, lines in tables.items():
        (data / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def webdataset(folder: Path) -> Path:
    """Two tar shards with audio, text and fields."""
    folder.mkdir(parents=True)
    for shard, numbers in enumerate([(0, 1), (2,)]):
        with tarfile.open(folder / f"shard-{shard:05}.tar", "w") as tar:
            for i in numbers:
                fields = json.dumps({"speaker_id": SPEAKERS[i]}).encode()
                parts = {"wav": wav(i), "txt": TEXTS[i].encode(), "json": fields}
                for ending, content in parts.items():
                    member = tarfile.TarInfo(f"x/clip_{i}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


def nemo(folder: Path) -> Path:
    """A manifest of NeMo with offsets into one recording."""
    folder.mkdir(parents=True)
    soundfile.write(folder / "all.wav", np.concatenate([clip(i) for i in range(3)]), RATE)
    rows, start = [], 0.0
    for i in range(3):
        row = {"audio_filepath": "all.wav", "text": TEXTS[i], "speaker": SPEAKERS[i]}
        rows.append(row | {"offset": start, "duration": SECONDS[i]})
        start += SECONDS[i]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.json").write_text("\ufeff" + text, encoding="utf-8")
    return folder / "manifest.json"


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    layout.__name__: layout
    for layout in (
        common_voice, common_voice_list, parquet_folder, parquet_file, parquet_arrays, bare_arrays,
        saved, saved_splits, kaldi, kaldi_segments, webdataset, nemo,
    )
}  # fmt: skip
