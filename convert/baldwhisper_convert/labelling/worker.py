"""Labels one shard after another: what a worker process does, without Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baldwhisper_convert.labelling.measures import Output, measure, reason_to_drop
from baldwhisper_convert.labelling.models import LabelModel, load
from baldwhisper_convert.labelling.rows import Clip, Table, read_clip
from baldwhisper_convert.labelling.settings import LabelSettings
from baldwhisper_convert.labelling.shards import LabelledSet, Report
from baldwhisper_mlx.audio.speech_dataset import SpeechData
from baldwhisper_mlx.config import SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker has to know; the same on all machines."""

    settings: LabelSettings
    folder: Path
    """Of the labelled set, absolute."""
    directory: Path
    """Working directory, which paths of a source may be relative to."""
    shard_rows: int
    """See `LabelledSet`."""
    skip_bad: bool = False
    batch_size: int = 8
    """Clips that are decoded together."""
    threads: int = 1
    """Of a worker on a CPU."""
    device: str = "auto"


class Worker:
    """Labels shards.

    Args:
        job: what to do.
        data: the source.
        models: already loaded; by default those of the settings are loaded.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """

    def __init__(
        self, job: Job, data: SpeechData, models: Sequence[LabelModel] | None = None
    ) -> None:
        self.job, self.data = job, data
        os.chdir(job.directory)
        settings = job.settings
        names = [name for name in (settings.model, settings.second_model) if name]
        self.models = models or [
            load(name, settings.language, job.device, job.threads) for name in names
        ]
        self.table = Table(data, second=settings.second_model is not None)
        self.set = LabelledSet(job.folder, len(data), job.shard_rows)

    def label_shard(self, shard: int) -> Report:
        """Labels the rows of a shard and writes it.

        Raises:
            ValueError: a row cannot be used, and bad rows are not skipped; names it.
        """
        began, cpu, report = time.perf_counter(), time.process_time(), Report()
        clips = self._read(shard, report)
        # Clips of one length share a batch, because the longest one decides what a batch costs.
        clips.sort(key=lambda clip: len(clip.samples))
        rows = []
        for start in range(0, len(clips), self.job.batch_size):
            rows += self._label(clips[start : start + self.job.batch_size], report)
        rows.sort(key=lambda row: row["source_row"])
        report.dropped.sort(key=lambda row: row["row"])
        report.kept = len(rows)
        report.kept_seconds = sum(row["duration"] for row in rows)
        report.working_seconds = time.perf_counter() - began
        report.cpu_seconds = time.process_time() - cpu
        self.set.write(shard, rows, self.table.features(), report)
        return report

    def _read(self, shard: int, report: Report) -> list[Clip]:
        """Decodes the rows of a shard."""
        clips = []
        for number in self.set.rows_of(shard):
            report.rows += 1
            try:
                clips.append(read_clip(self.data, number))
            except (ValueError, OSError) as error:
                name = self.data[number].name
                if not self.job.skip_bad:
                    what = str(error) if name in str(error) else f"{name}: {error}"
                    raise ValueError(f"{what}; --skip-bad skips such rows") from None
                report.dropped.append(_dropped(number, name, "unusable row", error=str(error)))
        report.seconds = sum(len(clip.samples) for clip in clips) / SAMPLE_RATE
        return clips

    def _label(self, clips: Sequence[Clip], report: Report) -> list[dict[str, Any]]:
        """Rows of the labels that are kept."""
        samples = [clip.samples for clip in clips]
        labels = self.models[0].label(samples)
        seconds: Sequence[Output | None] = [None] * len(clips)
        if len(self.models) > 1:
            seconds = self.models[1].label(samples)
        rows = []
        for clip, output, second in zip(clips, labels, seconds, strict=True):
            measures = measure(output, clip.given, second)
            reason = reason_to_drop(output, measures, self.job.settings)
            second_text = second.text if second else ""
            if reason:
                more = {"text": output.text, "given": clip.given, "second_text": second_text}
                report.dropped.append(
                    _dropped(clip.number, clip.item.name, reason, **more, **asdict(measures))
                )
            else:
                rows.append(self.table.row(clip, output.text, measures, second_text))
        return rows


def _dropped(number: int, name: str, reason: str, **more: Any) -> dict[str, Any]:
    """A line of the list of dropped rows."""
    return {"row": number + 1, "name": name, "reason": reason, **more}
