"""Loads the model of a command, with its warnings on standard error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import click

from baldwhisper_mlx.terminal import message_of, printable


def open_model(
    model_name: str | None,
    revision: str | None,
    language: str | None,
    audio_context: Any = None,
    *,
    languages: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Loads a model for a command; prints warnings on standard error.

    Args:
        model_name: folder or Hub id; None for the bundled model.
        revision: of a Hub model.
        language: code or name that the model has to know; None for any.
        audio_context: as for `load_model`.
        languages: codes or names that the model has to know; None for any.
        options: keyword arguments of `transcribe` that it has to be able to follow.

    Raises:
        click.ClickException: the model cannot be loaded, or cannot follow the options.
    """
    from baldwhisper_mlx.checkpoint.load import load_model
    from baldwhisper_mlx.transcription.inputs import check_options
    from baldwhisper_mlx.transcription.options import TranscribeOptions

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # to print them, even where they would be errors
            model = load_model(model_name, revision=revision, audio_context=audio_context)
        for warning in caught:  # without the line of code that Python would print
            click.echo(f"warning: {printable(str(warning.message))}", err=True)
        if language is not None:  # here, or every file would fail
            model.tokenizer.to_language(language)
        if languages is not None:
            model.tokenizer.candidates(languages)
        if options is not None:
            check_options(TranscribeOptions(**options), model)
    except (OSError, ValueError) as error:
        raise click.ClickException(message_of(error)) from None
    return model
