"""Labels a source of speech, or resumes an interrupted run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_convert.labelling.cluster import Resources, check_installed, label_shards
from baldwhisper_convert.labelling.settings import LabelSettings, located
from baldwhisper_convert.labelling.shards import LabelledSet
from baldwhisper_convert.labelling.worker import Job
from baldwhisper_convert.locks import lock_folder
from baldwhisper_mlx.audio.speech_columns import Say, say_nothing
from baldwhisper_mlx.audio.speech_dataset import SpeechData


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where speech is; the fields are those of `SpeechData`."""

    name: str
    split: str = "train"
    text_column: str | None = "text"
    audio_column: str = "audio"

    def open(self, say: Say) -> SpeechData:
        """Reads the rows, without audio.

        Raises:
            FileNotFoundError, ValueError, ModuleNotFoundError: as `SpeechData`.
        """
        data = SpeechData(
            self.name, split=self.split, text_column=self.text_column,
            audio_column=self.audio_column, say=say,
        )  # fmt: skip
        if not len(data):
            raise ValueError(f"{self.name}: has no rows to label")
        return data


def label(
    source: Source,
    folder: Path,
    settings: LabelSettings,
    resources: Resources,
    *,
    skip_bad: bool = False,
    batch_size: int = 8,
    device: str = "auto",
    shard_rows: int | None = None,
    say: Say = say_nothing,
) -> dict[str, Any]:
    """Labels speech with one or two models, in several processes.

    Args:
        source: the speech.
        folder: of the labelled set, which `prepare` reads; on a cluster, one that all machines
            have at the same path, as the audio and the models.
        settings: the models, and which labels are kept.
        resources: of the workers.
        skip_bad: leave out rows that cannot be used; otherwise the first one is an error.
        batch_size: clips that are decoded together.
        device: torch device of checkpoints that are no model folders; `auto` for a GPU that a
            worker has, else the CPU.
        shard_rows: see `LabelledSet`.
        say: receives lines about columns and progress.

    Returns:
        The summary, see `LabelledSet.finish`.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        FileExistsError: the folder was made with other settings, or holds something else.
        FileNotFoundError, ValueError: the source, a model or a row cannot be used.
        BlockingIOError: another process labels into the folder.
    """
    check_installed()  # before a folder is made
    data = source.open(say)
    written, rows = settings.to_dict(), len(data)
    folder = folder.expanduser().absolute()
    labelled = LabelledSet(folder, rows, shard_rows)
    with lock_folder(folder, "labels speech"):
        labelled.begin(_identity(source, data, labelled) | written | _prints(written))
        missing = labelled.missing()
        if labelled.is_finished and not missing:
            say(f"{folder}: is labelled already")
            return labelled.finish()
        if done := rows - sum(len(labelled.rows_of(shard)) for shard in missing):
            say(f"{folder}: resumes; {done} of {rows} rows are labelled")
        job = Job(
            settings=LabelSettings(**written),  # type: ignore[arg-type]
            folder=folder, directory=Path.cwd(), skip_bad=skip_bad, batch_size=batch_size,
            shard_rows=labelled.shard_rows, threads=resources.cpus,
            # A GPU that Ray has not given to the worker may be another's.
            device="cpu" if device == "auto" and not resources.gpus else device,
        )  # fmt: skip
        with tqdm(total=rows, initial=done, desc="label", unit="clip") as bar:
            for one in label_shards(job, data, missing, resources) if missing else ():
                bar.update(one.rows)
        return labelled.finish()


def _identity(source: Source, data: SpeechData, labelled: LabelledSet) -> dict[str, Any]:
    """What must be the same when a run is resumed, besides the settings."""
    digest = hashlib.sha256(repr(data.rows).encode()) if data.is_list else None
    return {
        "source": located(source.name), "split": source.split, "rows": len(data),
        "text_column": data.columns.text, "audio_columns": list(data.columns.audio),
        "list": digest and digest.hexdigest()[:16], "shard_rows": labelled.shard_rows,
    }  # fmt: skip


def _prints(settings: dict[str, object]) -> dict[str, Any]:
    """Of local models, what identifies the files."""
    prints = {}
    for key in ("model", "second_model"):
        path = Path(str(settings[key]))
        if settings[key] is None or not path.exists():
            continue
        files = (
            sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        )
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.name.encode() + Utterance("", str(file), "").content())
        prints[f"{key}_files"] = digest.hexdigest()[:16]
    return prints
