"""Models that write known texts, and labelled sets made with them in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baldwhisper_convert.labelling.measures import Output
from baldwhisper_convert.labelling.settings import LabelSettings
from baldwhisper_convert.labelling.shards import LabelledSet
from baldwhisper_convert.labelling.worker import Job, Worker
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.speech_dataset import SpeechData


@dataclass
class Scripted:
    """Writes for each clip what a function makes of its number of samples."""

    write: Callable[[int], str]
    batches: list[list[int]] = field(default_factory=list)
    """Samples of the clips of every batch."""

    def label(self, clips: Sequence[Samples]) -> list[Output]:
        self.batches.append([len(clip) for clip in clips])
        return [Output(self.write(len(clip)), -0.5) for clip in clips]


def worker(folder: Path, source: Path, *models: Scripted, **options: Any) -> Worker:
    """A worker for a source, whose set has been begun; `options` are of Job and LabelSettings."""
    job = {
        key: options.pop(key) for key in ("skip_bad", "batch_size", "shard_rows") if key in options
    }
    text = options.pop("text_column", "text")
    data = SpeechData(str(source), split="train", text_column=text)
    second = "second" if len(models) > 1 else None
    settings = LabelSettings(model="first", second_model=second, **options)
    made = Job(settings=settings, folder=folder, directory=Path.cwd(), **({"shard_rows": 4} | job))
    LabelledSet(folder, len(data), made.shard_rows).begin({"rows": len(data)})
    return Worker(made, data, models)


def label_all(worker: Worker) -> dict[str, Any]:
    """Labels all shards, the last one first, and finishes the set."""
    for shard in reversed(worker.set.missing()):
        worker.label_shard(shard)
    return worker.set.finish()
