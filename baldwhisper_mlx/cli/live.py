"""The command `baldwhisper live`: text while somebody speaks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_mlx.cli.usage import check_detection, languages_option, task_option
from baldwhisper_mlx.terminal import message_of, printable

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
@languages_option
@task_option
@click.option("--initial-prompt",
              help="Text to condition every utterance on, as if it preceded the audio: names, "
              "spelling, style.")  # fmt: skip
@click.option("--hotwords", metavar="TEXT",
              help="Names and terms to condition every utterance on.")  # fmt: skip
@click.option("--audio-context", type=click.Choice(["full", "padded"]),
              help="Encode 30 s in every draft (full, as OpenAI's Whisper), or the utterance alone "
              "with constants for the rest (padded). Default: padded if the model folder has "
              "padding.safetensors.")  # fmt: skip
@click.option("--input", "source", metavar="FILE",
              help="Read an audio file instead of the microphone; - reads raw PCM from standard "
              "input.")  # fmt: skip
@click.option("--realtime", is_flag=True,
              help="Read the file of --input at the speed of time.")  # fmt: skip
@click.option("--pcm-rate", type=click.IntRange(min=1), show_default="16000 Hz",
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
              help="Least new speech between two drafts, which are made less often on a slow "
              "machine; there are none if standard output is no terminal.")  # fmt: skip
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
    realtime: bool,
    pcm_rate: int | None,
    audio_context: str | None,
    **settings: Any,
) -> None:
    """Transcribe the microphone while somebody speaks, until Ctrl-C.

    On a terminal the words so far are shown, those that may still change dimmed. After a pause the
    utterance is transcribed as a whole and printed as a line. Ctrl-C, SIGTERM and a closed terminal
    finish the utterance at hand. The microphone needs the package sounddevice: pip install
    'baldwhisper-mlx[live]'.
    """
    check_detection(settings["language"], settings["languages"], multilingual=False)
    _check_usage(source, realtime, pcm_rate, device)
    if settings["frame_threshold"] is not None and settings["policy"] == LOCAL_AGREEMENT:
        raise click.UsageError("--frame-threshold is for --policy alignatt")

    from baldwhisper_mlx.cli import live_input, live_microphone
    from baldwhisper_mlx.cli.live_output import LivePrinter, check_output
    from baldwhisper_mlx.cli.live_run import printed_warnings, transcribe_blocks
    from baldwhisper_mlx.cli.live_signals import interruption

    printer = LivePrinter()
    try:
        if list_devices:
            for line in live_microphone.microphones():
                click.echo(printable(line))
            return
        if output is not None:
            check_output(output, force=force)
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(interruption())
            stack.enter_context(printed_warnings(printer.warn))
            blocks: Iterator[Samples]
            if source is None:
                recording = live_microphone.microphone(device, stop, printer.warn)
                blocks = stack.enter_context(recording)
            elif source == STDIN:
                blocks = live_input.pcm_blocks(pcm_rate or 16_000, stop)
            else:
                blocks = live_input.file_blocks(source, stop, realtime=realtime)
            transcriber = _transcriber(
                model, revision, audio_context, drafts=printer.shows_drafts, **settings
            )
            transcribe_blocks(blocks, transcriber, printer, stop, output, force=force)
    except (OSError, ValueError, FloatingPointError) as error:
        raise click.ClickException(message_of(error)) from None


def _check_usage(
    source: str | None, realtime: bool, pcm_rate: int | None, device: str | None
) -> None:
    """Raises click.UsageError for options that exclude each other."""
    if realtime and source in (None, STDIN):
        raise click.UsageError("--realtime is for a file: give --input FILE")
    if pcm_rate is not None and source != STDIN:
        raise click.UsageError("--pcm-rate is for raw PCM on standard input: give --input -")
    if device is not None and source is not None:
        raise click.UsageError("--device is for the microphone: leave out --input, or --device")


def _transcriber(
    model: str | None,
    revision: str | None,
    audio_context: str | None,
    *,
    drafts: bool,
    policy: str | None,
    frame_threshold: int | None,
    interval: float,
    pause: float,
    **options: Any,
) -> Any:
    """A LiveTranscriber with the options of the command."""
    from baldwhisper_mlx.audio.vad import VadOptions
    from baldwhisper_mlx.cli.loading import open_model
    from baldwhisper_mlx.transcription.live import LiveTranscriber
    from baldwhisper_mlx.transcription.live_policies import AlignAtt, LocalAgreement, Policy

    loaded = open_model(
        model, revision, options["language"], audio_context,
        languages=options["languages"], options=options,
    )  # fmt: skip
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
        interval=interval if drafts else None,
        vad_options=VadOptions(min_silence_duration=pause),
        **options,
    )
