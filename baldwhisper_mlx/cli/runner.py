"""Runs one model over many files: `baldwhisper transcribe` after its options are checked.

A file that fails is reported, and the remaining ones are still processed. Each result is written
before the next file is transcribed. Only results go to standard output.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_mlx.cli.inputs import without_existing
from baldwhisper_mlx.cli.loading import open_model
from baldwhisper_mlx.cli.printing import Printer
from baldwhisper_mlx.cli.progress import Progress, beside_bars, progress_bar
from baldwhisper_mlx.cli.reading import audio_of_files
from baldwhisper_mlx.cli.reporting import FILE_ERRORS, is_readable, label, report
from baldwhisper_mlx.cli.streams import ClosedOutput
from baldwhisper_mlx.files import write_files
from baldwhisper_mlx.output.subtitles import Layout
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.terminal import printable

if TYPE_CHECKING:
    from baldwhisper_mlx.audio.buffer import Samples


def transcribe_files(
    files: Sequence[str],
    model_name: str | None,
    revision: str | None,
    *,
    layout: Layout,
    printer: Printer | None,
    plan: Sequence[Mapping[str, Path]] | None,
    force: bool,
    pcm_rate: int | None,
    audio_context: Any,
    audio_options: Mapping[str, Any],
    options: dict[str, Any],
) -> list[str]:
    """Transcribes files in their order and reports on standard error.

    Args:
        files: audio paths, or `-` for standard input.
        model_name: folder or Hub id; None for the bundled model.
        revision: of a Hub model.
        layout: of subtitles.
        printer: prints the transcripts; None to write files.
        plan: from `plan_outputs`: per file, format to path; None to print.
        force: whether existing outputs are replaced.
        pcm_rate: Hz, if standard input is raw PCM.
        audio_context: as for `load_model`.
        audio_options: track, channels and max_duration, as for `load_audio`.
        options: keyword arguments of `transcribe`.

    Returns:
        Names of the files that failed.

    Raises:
        click.ClickException: the model cannot be loaded or cannot follow the options.
    """
    failed = [name for name in files if not is_readable(name)]
    outputs = dict(zip(files, plan or [{} for _ in files], strict=True))
    readable = [name for name in files if name not in failed]
    if not readable:
        return failed  # without loading a model, or downloading it, for nothing
    model = open_model(model_name, revision, None, audio_context, options=options)
    for name, audio in audio_of_files(readable, pcm_rate=pcm_rate, **audio_options):
        try:
            transcript = _transcribe_one(name, audio, model, options, printer)
            if printer is not None:
                printer.transcript(name, transcript)
            wanted = outputs[name].items()
            texts = {path: transcript.to_format(kind, layout) for kind, path in wanted}
            write_files(texts, force=force)
        except (BrokenPipeError, ClosedOutput):
            raise  # nothing can be printed: its reader has ended, which click exits for in silence
        except FILE_ERRORS as error:
            report(name, error)
            failed.append(name)
    return failed


def skip_finished(
    files: tuple[str, ...], plan: list[dict[str, Path]]
) -> tuple[tuple[str, ...], list[dict[str, Path]]]:
    """`without_existing`, with a line about how many files are skipped.

    Args:
        files: audio paths, or `-`.
        plan: from `plan_outputs`.
    """
    remaining, missing = without_existing(files, plan)
    if n_skipped := len(files) - len(remaining):
        click.echo(f"{n_skipped} of {len(files)} files skipped: outputs exist", err=True)
    return remaining, missing


def _transcribe_one(
    name: str,
    audio: Future[Samples | list[Samples]],
    model: Any,
    options: dict[str, Any],
    printer: Printer | None,
) -> Transcript:
    import mlx.core as mx

    mx.reset_peak_memory()
    started = time.perf_counter()
    transcript = _transcribed(name, audio.result(), model, options, printer)
    seconds = time.perf_counter() - started
    click.echo(
        f"{label(name)}: {transcript.duration:.1f} s of audio in {seconds:.1f} s "
        f"({transcript.duration / seconds:.1f}x real time), "
        f"{f'language {transcript.language}' if transcript.language else 'no speech'}, "
        f"peak memory {mx.get_peak_memory() / 1e6:.0f} MB",
        err=True,
    )
    return transcript


def _transcribed(
    name: str,
    samples: Samples | list[Samples],
    model: Any,
    options: dict[str, Any],
    printer: Printer | None,
) -> Transcript:
    """The transcript of a recording, or of its channels, one by one.

    Segments are printed as they come, but for those of channels, which are merged at the end.
    """
    from baldwhisper_mlx.transcription.channels import merge_channels
    from baldwhisper_mlx.transcription.transcribe import transcribe, transcribe_iter

    channels = samples if isinstance(samples, list) else [samples]
    transcripts = []
    with progress_bar(name) as on_progress, _warnings(name):
        if printer is not None and printer.takes_segments and len(channels) == 1:
            stream = transcribe_iter(channels[0], model, on_progress=on_progress, **options)
            for segment in stream:
                printer.segment(name, segment)
            return stream.transcript()
        for i, channel in enumerate(channels):
            progress = on_progress and partial(_advance, on_progress, i, len(channels))
            transcripts.append(transcribe(channel, model, on_progress=progress, **options))
    return merge_channels(transcripts) if len(channels) > 1 else transcripts[0]


def _advance(report: Progress, channel: int, n_channels: int, done: float, total: float) -> None:
    report(channel * total + done, n_channels * total)


@contextlib.contextmanager
def _warnings(name: str) -> Iterator[None]:
    """Prints warnings about a transcription with the file's name; others stay as they are."""
    from baldwhisper_mlx.transcription.language import LanguageWarning
    from baldwhisper_mlx.transcription.options import OptionWarning

    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, (LanguageWarning, OptionWarning)):
            with beside_bars(sys.stderr):
                click.echo(f"warning: {label(name)}: {printable(str(message))}", err=True)
        else:  # of the thread that reads the next file
            shown(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", LanguageWarning)
        warnings.simplefilter("always", OptionWarning)
        warnings.showwarning = show
        yield
