"""Runs one model over many files: `baldwhisper transcribe` after its options are checked.

A file that fails is reported, and the remaining ones are still processed. Each result is written
before the next file is transcribed. Only results go to standard output.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_mlx.cli.inputs import STDIN
from baldwhisper_mlx.files import write_files
from baldwhisper_mlx.output.writers import Writer
from baldwhisper_mlx.transcription.segments import Transcript

if TYPE_CHECKING:
    from baldwhisper_mlx.audio.buffer import Samples

Progress = Callable[[float, float], None]

# What bad audio, a full disk and non-finite logits raise. Anything else is a bug, and shows its
# traceback.
_FILE_ERRORS = (OSError, ValueError, ArithmeticError, RuntimeError)


class _Stdin(io.BufferedReader):
    """Standard input, with the name that messages and outputs use for it."""

    name = "stdin"


def transcribe_files(
    files: Sequence[str],
    model_name: str | None,
    revision: str | None,
    *,
    writers: Mapping[str, Writer],
    printed_format: str,
    plan: Sequence[Mapping[str, Path]] | None,
    force: bool,
    pcm_rate: int | None,
    audio_context: Any,
    options: dict[str, Any],
) -> list[str]:
    """Transcribes files in their order and reports on standard error.

    While the model works on a file, the next one is read and decoded to samples.

    Args:
        files: audio paths, or `-` for standard input.
        model_name: folder or Hub id; None for the bundled model.
        revision: of a Hub model.
        writers: by format.
        printed_format: format of what is printed, if `plan` is None.
        plan: from `plan_outputs`: per file, format to path; None to print on standard output.
        force: whether existing outputs are replaced.
        pcm_rate: Hz, if standard input is raw PCM.
        audio_context: as for `load_model`.
        options: keyword arguments of `transcribe`.

    Returns:
        Names of the files that failed.

    Raises:
        click.ClickException: the model cannot be loaded or does not know the language.
    """
    failed = [name for name in files if not _is_readable(name)]
    outputs = dict(zip(files, plan or [{} for _ in files], strict=True))
    readable = [name for name in files if name not in failed]
    if not readable:
        return failed  # without loading a model, or downloading it, for nothing
    model = open_model(model_name, revision, options["language"], audio_context)
    printed = 0
    for name, audio in decoded_ahead(readable, partial(_read, pcm_rate=pcm_rate)):
        try:
            transcript = _transcribe_one(name, audio, model, options)
            if plan is None:
                text = writers[printed_format](transcript)
                _print(name, text, header=len(files) > 1, first=printed == 0)
                printed += 1
            else:
                texts = {path: writers[kind](transcript) for kind, path in outputs[name].items()}
                write_files(texts, force=force)
        except BrokenPipeError:
            raise  # the program that reads the output has ended; click exits without a message
        except _FILE_ERRORS as error:
            _report(name, error)
            failed.append(name)
    return failed


def detect_languages(
    files: Sequence[str], model_name: str | None, revision: str | None, windows: int, top: int
) -> list[str]:
    """Prints the most probable languages of files, a line each.

    Args:
        files: audio paths, or `-` for standard input.
        model_name: folder or Hub id; None for the bundled model.
        revision: of a Hub model.
        windows: of 30 s, over which probabilities are averaged.
        top: languages to print.

    Returns:
        Names of the files that failed.

    Raises:
        click.ClickException: the model cannot be loaded.
    """
    from baldwhisper_mlx.transcription.transcribe import detect_language

    failed = [name for name in files if not _is_readable(name)]
    readable = [name for name in files if name not in failed]
    model = open_model(model_name, revision, None) if readable else None
    for name, audio in decoded_ahead(readable, partial(_read, pcm_rate=None)):
        try:
            probabilities = detect_language(audio.result(), model, windows=windows)
        except _FILE_ERRORS as error:
            _report(name, error)
            failed.append(name)
            continue
        likeliest = list(probabilities.items())[:top]
        listed = ", ".join(f"{code} {probability:.3f}" for code, probability in likeliest)
        click.echo(f"{_label(name)}: {listed}")
    return failed


def decoded_ahead(
    names: Sequence[str], read: Callable[[str], Samples]
) -> Iterator[tuple[str, Future[Samples]]]:
    """Each name with the future of its samples; a thread reads one file ahead of the caller."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        upcoming = pool.submit(read, names[0]) if names else None
        for i, name in enumerate(names):
            current = upcoming
            # No further ahead: each decoded file takes memory.
            upcoming = pool.submit(read, names[i + 1]) if i + 1 < len(names) else None
            assert current is not None
            yield name, current
    finally:
        pool.shutdown(cancel_futures=True)


def _read(name: str, pcm_rate: int | None) -> Samples:
    from baldwhisper_mlx.audio.load import load_audio, load_pcm

    if name != STDIN:
        return load_audio(name)
    stdin = _Stdin(sys.stdin.buffer)  # type: ignore[arg-type]  # it has what a raw stream has
    try:
        return load_audio(stdin) if pcm_rate is None else load_pcm(stdin, pcm_rate)
    finally:
        stdin.detach()  # or sys.stdin would be closed with it


def _is_readable(name: str) -> bool:
    if name == STDIN:
        return True
    path = Path(name)
    if path.is_dir():
        _report(name, ValueError("the folder contains no audio files"))
    elif not path.exists():
        _report(name, FileNotFoundError("no such file"))
    else:
        return True
    return False


def open_model(
    model_name: str | None,
    revision: str | None,
    language: str | None,
    audio_context: Any = None,
) -> Any:
    """Loads a model for a command; prints warnings on standard error.

    Args:
        model_name: folder or Hub id; None for the bundled model.
        revision: of a Hub model.
        language: code or name that the model has to know; None for any.
        audio_context: as for `load_model`.

    Raises:
        click.ClickException: the model cannot be loaded or does not know the language.
    """
    from baldwhisper_mlx.checkpoint.load import load_model

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # to print them, even where they would be errors
            model = load_model(model_name, revision=revision, audio_context=audio_context)
        for warning in caught:  # without the line of code that Python would print
            click.echo(f"warning: {warning.message}", err=True)
        if language is not None:  # here, or every file would fail
            model.tokenizer.to_language(language)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    return model


def _transcribe_one(
    name: str, audio: Future[Samples], model: Any, options: dict[str, Any]
) -> Transcript:
    import mlx.core as mx

    from baldwhisper_mlx.transcription.transcribe import transcribe

    mx.reset_peak_memory()
    started = time.perf_counter()
    samples = audio.result()
    with _progress_bar(name) as on_progress:
        transcript = transcribe(samples, model, on_progress=on_progress, **options)
    seconds = time.perf_counter() - started
    click.echo(
        f"{_label(name)}: {transcript.duration:.1f} s of audio in {seconds:.1f} s "
        f"({transcript.duration / seconds:.1f}x real time), language {transcript.language}, "
        f"peak memory {mx.get_peak_memory() / 1e6:.0f} MB",
        err=True,
    )
    return transcript


@contextlib.contextmanager
def _progress_bar(name: str) -> Iterator[Progress | None]:
    """A progress bar in seconds of audio; None, and no bar, unless standard error is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    layout = "{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"
    with tqdm(total=0.0, desc=_label(name), bar_format=layout, leave=False) as bar:

        def advance(done: float, total: float) -> None:
            bar.total = total
            bar.update(min(done, total) - bar.n)

        yield advance


def _print(name: str, text: str, *, header: bool, first: bool) -> None:
    if header:
        text = ("" if first else "\n") + f"==> {_label(name)} <==\n{text}"
    # Bytes, because output is UTF-8 whatever the locale.
    click.echo(text.encode("utf-8", errors="surrogateescape"), nl=False)


def _report(name: str, error: Exception) -> None:
    message = str(error) or type(error).__name__
    prefix = "" if message.startswith(_label(name)) else f"{_label(name)}: "
    click.echo(f"error: {prefix}{message}", err=True)


def _label(name: str) -> str:
    return "stdin" if name == STDIN else name
