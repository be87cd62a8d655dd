"""Feeds what arrives to a `LiveTranscriber`, and brings every event to where it belongs."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.cli.live_output import LivePrinter, UtteranceFile
from baldwhisper_mlx.cli.live_signals import StopSignal
from baldwhisper_mlx.transcription.language import LanguageWarning
from baldwhisper_mlx.transcription.live import LiveTranscriber
from baldwhisper_mlx.transcription.live_events import LiveEvent


def transcribe_blocks(
    blocks: Iterable[Samples],
    transcriber: LiveTranscriber,
    printer: LivePrinter,
    stop: StopSignal,
    output: Path | None,
    *,
    force: bool,
) -> None:
    """Transcribes until the input ends, and finishes the utterance at hand.

    Also if the input fails: its error is raised after that.

    Args:
        blocks: samples at 16 kHz.
        transcriber: takes them.
        printer: shows events.
        stop: says whether the terminal was closed.
        output: file for utterances, if there is one.
        force: replace it if it exists.

    Raises:
        OSError: an output cannot be written. FloatingPointError: NaN or infinite logits. Errors of
            the blocks.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(UtteranceFile(output, force=force)) if output else None
        stack.callback(_clear, printer)

        def report(events: Iterable[LiveEvent]) -> None:
            for event in events:
                try:
                    if file is not None:
                        file.write(event)
                finally:
                    _show(event, printer, stop)

        def reported(step: Callable[[], list[LiveEvent]]) -> None:
            try:
                events = step()
            except BaseException:  # what was found before it
                report(transcriber.take_events())
                raise
            report(events)

        iterator, failure = iter(blocks), None
        while True:
            try:
                block = next(iterator, None)
            except Exception as error:
                failure = error
                break
            if block is None:
                break
            reported(partial(transcriber.feed, block))
        reported(transcriber.finish)
        if failure is not None:
            raise failure


@contextlib.contextmanager
def printed_warnings(warn: Callable[[str], None]) -> Iterator[None]:
    """Prints warnings of a transcription without a line of code, and each once.

    Of doubts about the language, which come with figures of each utterance, the first is printed.

    Args:
        warn: prints one.
    """
    printed = set[str]()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        key = category.__name__ if issubclass(category, LanguageWarning) else str(message)
        if key not in printed:
            printed.add(key)
            warn(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _show(event: LiveEvent, printer: LivePrinter, stop: StopSignal) -> None:
    """Shows an event; on a terminal that was closed nobody misses it."""
    try:
        printer.show(event)
    except OSError:
        if not stop.hung_up:
            raise
        # Or what the stream still holds would be an error at the end of the program.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _clear(printer: LivePrinter) -> None:
    with contextlib.suppress(OSError):
        printer.clear()
