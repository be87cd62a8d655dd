"""The command `prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_convert.cli.errors import one_line_errors, say
from baldwhisper_convert.cli.options import FOLDER, changes_option

if TYPE_CHECKING:
    from baldwhisper_convert.data.prepared import Prepared


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--data", multiple=True, required=True, metavar="FOLDER_FILE_OR_HUB_ID",
              help="Transcribed speech: a folder, a CSV, TSV, JSON or JSONL file, parquet or tar "
              "files, or a Hugging Face dataset. Repeatable. With --set labels=none, "
              "transcripts are not needed, but a list of the files is.")  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Split of the dataset.")
@click.option("--text-column", default="text", show_default=True,
              help="Column of transcripts. If there is no text, the default also finds sentence, "
              "transcription, transcript and the like. \"\" for speech without "
              "transcripts.")  # fmt: skip
@click.option("--audio-column", default="audio", show_default=True, help="Column of audio.")
@click.option("--streaming", is_flag=True,
              help="Read a Hub dataset while it is downloaded, without storing it.")  # fmt: skip
@click.option("--skip-bad", is_flag=True,
              help="Skip utterances that cannot be used, and name each of them.")  # fmt: skip
@click.option("--device", default="auto", show_default=True,
              help="PyTorch device that the teacher runs on: cpu, mps, cuda, or the best that "
              "there is.")  # fmt: skip
@click.option("--shard", metavar="I/N",
              help="Prepare the I-th of N shards only, for machines that share nothing but the "
              "disk of DST. When all are done, the same command without --shard completes "
              "DST.")  # fmt: skip
@changes_option
def prepare(
    source: str,
    destination: Path,
    data: Sequence[str],
    split: str,
    text_column: str,
    audio_column: str,
    streaming: bool,
    skip_bad: bool,
    device: str,
    shard: str | None,
    changes: Sequence[str],
) -> None:
    """Prepare speech for training.

    Joins clips of at most 30 s to windows, and stores their labels and the encoder states of
    the teacher SRC, or log-mel, in the folder DST, which the other commands read with --data
    and --dev. If a run is interrupted, run the same command again to resume it. torchrun or
    `accelerate launch` starts it in several processes, which share the work. Settings (--set):
    labels=text|teacher|none, features=states|mel, audio_context=full|dynamic, passes, max_wer,
    language, language_tokens=window|turns, seed, windows.*, augmentation.*
    """
    with one_line_errors():
        from baldwhisper_convert.data import prepare as preparing
        from baldwhisper_convert.data import utterances as reading
        from baldwhisper_convert.data.clips import Reading
        from baldwhisper_convert.data.pieces import Shard
        from baldwhisper_convert.data.prepare_settings import PrepareSettings
        from baldwhisper_convert.pipeline.prepared_data import prepare_data
        from baldwhisper_convert.pipeline.settings import override
        from baldwhisper_convert.processes import Processes
        from baldwhisper_convert.readers.read import read_checkpoint
        from baldwhisper_mlx.audio.speech_columns import say_nothing

        settings = override(PrepareSettings(), changes)
        part = Shard.parse(shard) if shard else None
        teacher, main = read_checkpoint(source), Processes.start().main
        tell = say if main else say_nothing
        bad = reading.BadRows(allowed=skip_bad, say=tell)
        columns = {"text_column": settings.text_from(text_column), "audio_column": audio_column}
        how: dict[str, Any] = {"split": split, "streaming": streaming, **columns}
        utterances = Reading(partial(reading.read_all, data, **how), bad, tell)
        if part:
            preparing.prepare_shard(
                teacher, utterances, settings, destination, part, bad=bad, device=device
            )
            if main:
                say(f"{destination}: shard {shard} is done; bad utterances: {bad}")
            return
        prepared = prepare_data(
            teacher, utterances, settings, destination, bad=bad, device=device, say=tell
        )
        if main:
            _report(prepared)


def _report(prepared: Prepared) -> None:
    """Says what was prepared."""
    hours = sum(window.duration for window in prepared.windows) / 3600
    report = prepared.settings["report"]
    say(
        f"{prepared.folder}: {len(prepared)} windows, {hours:.2f} h; bad utterances: "
        f"{report['bad']}; windows left out: {report['dropped']}"
    )
