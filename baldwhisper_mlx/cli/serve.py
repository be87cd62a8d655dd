"""The command `baldwhisper serve`: its options, checked before any model is loaded.

Only click is imported at the top, as in main.py.
"""

from __future__ import annotations

import importlib
import re
import threading
import warnings
import webbrowser
from collections.abc import Sequence
from typing import Any

import click

from baldwhisper_mlx.terminal import message_of, printable

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_ORIGIN = re.compile(r"https?://[^/\s]+")


def _bytes(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """A click callback: a size such as 512MB in bytes."""
    found = re.fullmatch(r"(\d{1,12})\s*([kmg]?b)?", value.strip(), re.IGNORECASE)
    size = int(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0
    if size < 1:
        raise click.BadParameter(f"{value!r} is no size such as 512MB or 2GB.")
    return size


def _origins(_ctx: click.Context, _param: click.Parameter, value: Sequence[str]) -> Sequence[str]:
    """A click callback: origins as browsers send them."""
    for origin in value:
        if not _ORIGIN.fullmatch(origin):
            raise click.BadParameter(
                f"{origin!r} is no origin such as https://example.org, without a path."
            )
    return value


@click.command(short_help="Serve OpenAI's audio API over HTTP.")
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on. Others than this machine reach only an address that is "
              "not loopback, which needs --api-key.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="Port to listen on; 0 for any that is free.")  # fmt: skip
@click.option("-m", "--model", "models", multiple=True,
              help="Model folder, or Hugging Face Hub id such as owner/name; can be repeated, the "
              "first is the default. Default: the English model that comes with the "
              "package.")  # fmt: skip
@click.option("--api-key", envvar="BALDWHISPER_API_KEY", show_envvar=True,
              help="Key that clients have to send.")  # fmt: skip
@click.option("--insecure", is_flag=True,
              help="Listen on an address that is not loopback without --api-key.")  # fmt: skip
@click.option("--max-upload", metavar="SIZE", default="512MB", show_default=True, callback=_bytes,
              help="Largest file that is taken.")  # fmt: skip
@click.option("--max-duration", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              default=14400.0, show_default=True,
              help="Longest recording that is taken; its samples need 230 MB of temporary space an "
              "hour.")  # fmt: skip
@click.option("--max-queue", type=click.IntRange(min=0), metavar="N", default=32,
              show_default=True,
              help="Requests that wait; further ones get the status 429.")  # fmt: skip
@click.option("--cors", "origins", multiple=True, metavar="ORIGIN", callback=_origins,
              help="Origin of web pages that may use the server, such as https://example.org; can "
              "be repeated. Default: none.")  # fmt: skip
@click.option("--open", "open_page", is_flag=True,
              help="Open the server's page in a browser.")  # fmt: skip
def serve(
    host: str,
    port: int,
    models: Sequence[str],
    api_key: str | None,
    insecure: bool,
    max_upload: int,
    max_duration: float,
    max_queue: int,
    origins: Sequence[str],
    open_page: bool,
) -> None:
    """Serve OpenAI's audio API over HTTP, for programs that speak it, and a page at /.

    Answers /v1/audio/transcriptions, /v1/audio/translations, /v1/realtime, /v1/models and /health
    (docs/server.md). Ctrl-C or SIGTERM ends it when the requests in hand have been answered, a
    second Ctrl-C at once. Needs the `server` extra: pip install 'baldwhisper-mlx[server]'.
    """
    _check_extra()
    from baldwhisper_mlx.server.app import Settings, create_app
    from baldwhisper_mlx.server.listening import listening_socket, make_server, url_of
    from baldwhisper_mlx.server.page import page_url
    from baldwhisper_mlx.server.security import is_loopback

    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
        raise click.UsageError("--api-key: use printable ASCII characters, and at least one")
    if not (is_loopback(host) or api_key is not None or insecure):
        raise click.UsageError(
            f"--host {host} lets other machines use this server: give --api-key, or --insecure"
        )
    try:
        listener = listening_socket(host, port)
    except OSError as error:
        raise click.ClickException(message_of(error)) from None
    with listener:
        served = _load(models or [None])
        settings = Settings(
            host=host,
            api_key=api_key,
            origins=origins,
            max_upload=max_upload,
            max_duration=max_duration,
            max_queue=max_queue,
        )
        url = url_of(listener)
        page = page_url(url)

        def announce() -> None:
            click.echo(f"Serving {served.default} at {url}/v1 (Ctrl-C ends it)\nPage: {page}")
            if open_page:
                # in a thread, because a browser in the terminal returns when it is closed
                threading.Thread(target=_open, args=(page,), daemon=True).start()

        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show
        make_server(create_app(served, settings), announce).run(sockets=[listener])


def _check_extra() -> None:
    # By name, because starlette imports python-multipart only when a form comes.
    for package in ("starlette", "uvicorn", "python_multipart", "websockets"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            raise click.ClickException(
                f"serve needs {package}: pip install 'baldwhisper-mlx[server]'"
            ) from None


def _load(names: Sequence[str | None]) -> Any:
    from baldwhisper_mlx.cli.loading import open_model
    from baldwhisper_mlx.server.models import Models, name_of

    loaded = [(name, open_model(name, None, None)) for name in names]
    try:
        return Models([(name_of(name, model), model) for name, model in loaded])
    except ValueError as error:
        raise click.ClickException(f"--model: {error}") from None


def _open(url: str) -> None:
    """Opens a page in the user's browser; where there is none, says so."""
    try:
        is_open = webbrowser.open(url)
    except (OSError, webbrowser.Error):
        is_open = False
    if not is_open:
        click.echo(f"--open: no browser was found; open {url} yourself", err=True)


def _show(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"warning: {printable(str(message))}", err=True)
