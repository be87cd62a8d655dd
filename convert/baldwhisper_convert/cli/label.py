"""The command `label`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from baldwhisper_convert.cli.errors import one_line_errors, say
from baldwhisper_convert.cli.options import FOLDER


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DST", type=FOLDER)
@click.option("--model", required=True, metavar="MODEL",
              help="Whose output is the label: a model folder, which the runtime runs, or any "
              "other Whisper checkpoint or Hub id, which torch runs.")  # fmt: skip
@click.option("--second-model", metavar="MODEL",
              help="Another model, to measure how far the two disagree.")  # fmt: skip
@click.option("--language", default="en", show_default=True,
              help="Language of the speech, as a code or English name.")  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Split of the dataset.")
@click.option("--text-column", default="text", show_default=True,
              help="Column of given transcripts, which labels are compared with. If there is no "
              "text, the default also finds sentence, transcription and the like. \"\" for "
              "speech without transcripts.")  # fmt: skip
@click.option("--audio-column", default="audio", show_default=True, help="Column of audio.")
@click.option("--max-wer", type=float,
              help="Drop labels with a higher word error rate against the given transcript, 0.1 "
              "for a tenth.")  # fmt: skip
@click.option("--max-disagreement", type=float,
              help="Drop a label if the word error rate of the second model's output against it is "
              "higher than this.")  # fmt: skip
@click.option(
    "--max-compression-ratio",
    type=float,
    default=2.4,
    show_default=True,
    help="Drop labels with a higher compression ratio: they repeat themselves.",
)
@click.option("--skip-bad", is_flag=True,
              help="Drop rows that cannot be used, and list each of them.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
              help="Clips that are decoded together.")  # fmt: skip
@click.option("--device", default="auto", show_default=True,
              help="PyTorch device of a model that torch runs. auto is the GPU of a worker that "
              "has one (--worker-gpus), and the CPU otherwise.")  # fmt: skip
@click.option("--address", default="local", show_default=True,
              help="Address of a Ray cluster, such as auto or ray://HOST:10001. local starts Ray "
              "on this machine.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1),
              help="Number of worker processes. Default: as many as the CPUs or GPUs "
              "allow.")  # fmt: skip
@click.option("--worker-cpus", type=click.IntRange(min=1), default=1, show_default=True,
              help="CPUs of a worker.")  # fmt: skip
@click.option("--worker-gpus", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="GPUs of a worker; 0.5 if two share one.")  # fmt: skip
@click.option("--shard-rows", type=click.IntRange(min=1), show_default="up to 256",
              help="Clips in a file of DST. A worker that is killed loses its work on as "
              "many.")  # fmt: skip
def label(source: str, destination: Path, **options: Any) -> None:
    """Label speech with a model, on many processes or machines.

    Transcribes the clips of SOURCE, of at most 30 s each, and writes audio, columns, labels and
    their measures to the folder DST as parquet files, which `prepare --data DST` reads. Needs
    Ray (the extra `ray`), which distributes the work. Labels beyond a limit are dropped and
    listed with the reason. If a run is interrupted, run the same command again to resume it.
    """
    with one_line_errors():
        from baldwhisper_convert.labelling.cluster import Resources
        from baldwhisper_convert.labelling.label import Source
        from baldwhisper_convert.labelling.label import label as run
        from baldwhisper_convert.labelling.settings import LabelSettings

        def pick(*names: str) -> dict[str, Any]:
            return {name: options[name] for name in names}

        summary = run(
            Source(name=source, text_column=options["text_column"] or None,
                   **pick("split", "audio_column")),
            destination,
            LabelSettings(**pick("model", "second_model", "language", "max_wer",
                                 "max_disagreement", "max_compression_ratio")),
            Resources(address=options["address"], workers=options["workers"],
                      cpus=options["worker_cpus"], gpus=options["worker_gpus"]),
            say=say, **pick("skip_bad", "batch_size", "device", "shard_rows"),
        )  # fmt: skip
        working, seconds = summary["working_seconds"], summary["seconds"]
        say(
            f"{destination}: {summary['kept']} of {summary['rows']} clips kept, "
            f"{summary['kept_seconds'] / 3600:.2f} of {seconds / 3600:.2f} h; a worker labelled "
            f"{seconds / working:.1f} h in an hour, in {summary['cpu_seconds'] / working:.1f} "
            "CPU-hours"
        )
        for reason, count in summary["dropped"].items():
            say(f"dropped: {count}, {reason}")
