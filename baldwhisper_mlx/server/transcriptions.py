"""POST /v1/audio/transcriptions and /v1/audio/translations: from the form to the answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.recording import TooLongError
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.errors import INTERNAL, ApiError, bad_value
from baldwhisper_mlx.server.events import Events, event_bytes
from baldwhisper_mlx.server.jobs import Job, Result
from baldwhisper_mlx.server.models import Models
from baldwhisper_mlx.server.parameters import Parameters, parse_fields
from baldwhisper_mlx.server.places import Places, while_connected
from baldwhisper_mlx.server.responses import answer
from baldwhisper_mlx.server.uploads import Form, discard_body, received_form
from baldwhisper_mlx.server.worker import Worker
from baldwhisper_mlx.terminal import message_of, printable
from baldwhisper_mlx.transcription.options import TranscribeOptions

T = TypeVar("T")
_log = logging.getLogger("baldwhisper_mlx.server")


@dataclass(frozen=True)
class Service:
    """What the requests share."""

    models: Models
    worker: Worker
    places: Places
    max_upload: int
    """Bytes of a file."""
    max_duration: float
    """Seconds of a recording."""


class Transcriptions:
    """The endpoint of a task, as an ASGI application.

    Args:
        service: shared by all requests.
        task: "transcribe" or "translate".
    """

    def __init__(self, service: Service, task: str) -> None:
        self._service = service
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; a client that disconnects gives its place back."""
        request = Request(scope, receive)
        try:
            with contextlib.suppress(ClientDisconnect), self._service.places.take():
                await self._answer(request, send)
        except ApiError as error:
            if "Connection" in error.headers and error.status != 408:
                await discard_body(request)
            raise

    async def _answer(self, request: Request, send: Send) -> None:
        service, scope, receive = self._service, request.scope, request.receive
        async with received_form(request, service.max_upload) as form:
            parameters = parse_fields(form.fields, self._task)
            _, loaded = service.models.find(parameters.model)
            parameters.check(loaded)
            await while_connected(
                receive, lambda: self._respond(form, parameters, loaded, scope, receive, send)
            )

    async def _respond(
        self,
        form: Form,
        parameters: Parameters,
        loaded: LoadedModel,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        worker, options = self._service.worker, parameters.options
        warnings: list[str] = []
        async with self._samples(form, warnings) as samples:
            results = results_of(worker, samples, loaded, options, warnings)
            async with contextlib.aclosing(results):
                if parameters.stream:
                    await _stream(results, Events(parameters, loaded.tokenizer), warnings, send)
                    return
                async for result in results:
                    if isinstance(result, Transcript):
                        response = answer(result, parameters, loaded.tokenizer, warnings)
                        await response(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _samples(self, form: Form, warnings: list[str]) -> AsyncIterator[Samples]:
        """The recording, in memory for the time of the block; what there is to say is added."""
        service = self._service

        async def load(max_duration: float) -> Samples:
            def samples(check: Callable[[], None]) -> Samples:
                return form.samples(check, max_duration, warn)

            warnings.clear()  # of an attempt with another limit
            return await _in_thread(samples)

        def warn(warning: Warning) -> None:
            warnings.append(message_of(warning))

        async with contextlib.AsyncExitStack() as stack:
            places = service.places.in_memory(load, service.max_duration)
            try:
                samples = await stack.enter_async_context(places)
            except TooLongError as error:
                raise bad_value("file", message_of(error)) from None
            yield samples


async def _in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """Has a thread do some work, which ends when the request does: it gets what checks that."""
    unwanted = threading.Event()

    def check() -> None:
        if unwanted.is_set():
            raise ClientDisconnect

    try:
        return await asyncio.to_thread(work, check)
    finally:
        unwanted.set()


async def results_of(
    worker: Worker,
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    warnings: list[str] | None = None,
) -> AsyncGenerator[Result, None]:
    """What the worker delivers, as it comes; errors are raised, and the end cancels the job.

    Args:
        worker: that transcribes.
        samples: of the recording, at 16 kHz (n,).
        loaded: the model.
        options: of the transcription.
        warnings: so far; they are complete, and in the log, when the transcript comes.
    """
    warnings = [] if warnings is None else warnings
    loop, results = asyncio.get_running_loop(), asyncio.Queue[Result]()

    def deliver(result: Result) -> None:
        # The loop is closed if the server was made to stop at once.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(results.put_nowait, result)

    job = Job(samples, loaded, options, deliver, warnings)
    try:
        await _in_thread(job.prepare)
        worker.submit(job)
        while True:
            result = await results.get()
            if isinstance(result, Exception):
                raise result
            if isinstance(result, Transcript):
                for warning in warnings:
                    _log.warning("warning: %s", printable(warning))
            yield result
            if isinstance(result, Transcript):
                return
    finally:
        job.cancel()


async def _stream(
    results: AsyncIterator[Result], events: Events, warnings: Sequence[str], send: Send
) -> None:
    """Sends events; an error in the middle is one, too, because the status has been sent."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        async for result in results:
            assert not isinstance(result, Exception)
            if isinstance(result, Transcript):
                new = [events.done(result, warnings)]
            else:
                new = events.of(result)
            for event in new:
                body = event_bytes(event)
                await send({"type": "http.response.body", "body": body, "more_body": True})
    except Exception:
        _log.exception("a transcription failed")
        body = event_bytes(ApiError(500, INTERNAL, code="internal_error").body(), "error")
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
