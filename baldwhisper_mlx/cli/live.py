"""The command `baldwhisper live`: text while somebody speaks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_mlx.terminal import message_of

if TYPE_CHECKING:
    from baldwhisper_mlx.audio.buffer import Samples

STDIN = "-"
ALIGNATT, LOCAL_AGREEMENT = POLICIES = ("alignatt", "local-agreement")


@click.command(short_help="Transcribe a microphone while somebody speaks.")
@click.option("-m", "--model",
              help="Model folder, or Hugging Face Hub id such as owner/name. Default: the English "
              "model that comes with the package.")  # fmt: skip
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
@click.option("-l", "--language",
              help="Spoken language, as a code or English name. Default: detected in each "
              "utterance.")  # fmt: skip
@click.option("--task", type=click.Choice(["transcribe", "translate"]), default="transcribe",
              show_default=True,
              help="Write the spoken words, or translate them into English.")  # fmt: skip
@click.option("--initial-prompt",
              help="Text to condition every utterance on, as if it preceded the audio: names, "
              "spelling, style.")  # fmt: skip
@click.option("--hotwords", metavar="TEXT",
              help="Names and terms to condition every utterance on.")  # fmt: skip
@click.option("--input", "source", metavar="FILE",
              help="Read an audio file instead of the microphone; - reads raw PCM from standard "
              "input.")  # fmt: skip
@click.option("--realtime", is_flag=True,
              help="Read the file of --input at the speed of time.")  # fmt: skip
@click.option("--pcm-rate", type=click.IntRange(min=1), default=16_000, show_default=True,
              metavar="HZ", help="Sample rate of raw PCM on standard input: 16-bit signed "
              "integers, little-endian, one channel.")  # fmt: skip
@click.option("--device", help="Number or part of the name of the microphone, as in "
              "--list-devices. Default: the system's.")  # fmt: skip
@click.option("--list-devices", is_flag=True, help="Print the microphones, and exit.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Also write finished utterances to this .txt, .srt, .vtt or .jsonl file, each "
              "as soon as it is finished.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
@click.option("--policy", type=click.Choice(POLICIES),
              help="How words are confirmed while somebody speaks: by the audio that they attend "
              "to, or once two drafts agree on them. Default: alignatt, if the model says which "
              "of its heads follow the audio.")  # fmt: skip
@click.option("--frame-threshold", type=click.IntRange(min=0), metavar="N",
              help="For alignatt: least distance, in frames of 20 ms, between the audio of a "
              "confirmed word and the newest audio. Default: 25.")  # fmt: skip
@click.option("--interval", type=click.FloatRange(0, 28, min_open=True), default=0.5,
              show_default=True, metavar="SECONDS",
              help="Least new speech between two drafts; there are none if standard output is "
              "no terminal.")  # fmt: skip
@click.option("--pause", type=click.FloatRange(0.6, 10), default=0.6, show_default=True,
              metavar="SECONDS", help="A longer silence ends an utterance.")  # fmt: skip
def live(
    model: str | None,
    revision: str | None,
    source: str | None,
    device: str | None,
    list_devices: bool,
    output: Path | None,
    force: bool,
    **settings: Any,
) -> None:
    """Transcribe the microphone while somebody speaks, until Ctrl-C.

    On a terminal the words so far are shown, those that may still change dimmed. After a pause the
    utterance is transcribed as a whole and printed as a line. The microphone needs the package
    sounddevice: pip install 'baldwhisper-mlx[live]'.
    """
    from baldwhisper_mlx.cli import live_input

    realtime, pcm_rate = settings.pop("realtime"), settings.pop("pcm_rate")
    _check_usage(source, realtime, device, settings["policy"], settings["frame_threshold"])
    try:
        if list_devices:
            for line in live_input.microphones():
                click.echo(line)
            return
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(live_input.interruption())
            blocks: Iterator[Samples]
            if source is None:
                blocks = stack.enter_context(live_input.microphone(device, stop))
            elif source == STDIN:
                blocks = live_input.pcm_blocks(pcm_rate, stop)
            else:
                blocks = live_input.file_blocks(source, stop, realtime=realtime)
            transcriber = _transcriber(model, revision, **settings)
            _transcribe(blocks, transcriber, output, force)
    except (OSError, ValueError, FloatingPointError) as error:
        raise click.ClickException(message_of(error)) from None


def _check_usage(
    source: str | None,
    realtime: bool,
    device: str | None,
    policy: str | None,
    frame_threshold: int | None,
) -> None:
    """Raises click.UsageError for options that exclude each other."""
    if realtime and source in (None, STDIN):
        raise click.UsageError("--realtime is for a file: give --input FILE")
    if device is not None and source is not None:
        raise click.UsageError("--device is for the microphone: leave out --input, or --device")
    if frame_threshold is not None and policy == LOCAL_AGREEMENT:
        raise click.UsageError("--frame-threshold is for --policy alignatt")


def _transcriber(
    model: str | None,
    revision: str | None,
    *,
    policy: str | None,
    frame_threshold: int | None,
    interval: float,
    pause: float,
    **options: Any,
) -> Any:
    """A LiveTranscriber with the options of the command."""
    from baldwhisper_mlx.audio.vad import Speech
    from baldwhisper_mlx.cli.loading import open_model
    from baldwhisper_mlx.transcription.live import LiveTranscriber
    from baldwhisper_mlx.transcription.live_policies import AlignAtt, LocalAgreement, Policy

    loaded = open_model(model, revision, options["language"], options=options)
    chosen: Policy | None = None
    if policy == LOCAL_AGREEMENT:
        chosen = LocalAgreement()
    elif frame_threshold is not None:
        chosen = AlignAtt(frame_threshold)
    elif policy == ALIGNATT:
        chosen = AlignAtt()
    return LiveTranscriber(
        loaded,
        policy=chosen,
        interval=interval if sys.stdout.isatty() else None,
        speech=Speech(pause=pause),
        **options,
    )


def _transcribe(
    blocks: Iterable[Samples], transcriber: Any, output: Path | None, force: bool
) -> None:
    """Transcribes until the input ends, and finishes the utterance at hand."""
    from baldwhisper_mlx.cli.live_output import LivePrinter, UtteranceFile

    printer = LivePrinter()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(UtteranceFile(output, force=force)) if output else None

        def report(events: Iterable[Any]) -> None:
            for event in events:
                if file is not None:
                    file.write(event)
                printer.show(event)

        for block in blocks:
            report(transcriber.feed(block))
        report(transcriber.finish())
