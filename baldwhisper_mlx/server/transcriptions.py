"""POST /v1/audio/transcriptions and /v1/audio/translations: from the form to the answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.errors import INTERNAL, ApiError
from baldwhisper_mlx.server.jobs import Job, Result
from baldwhisper_mlx.server.models import Models
from baldwhisper_mlx.server.parameters import Parameters, parse_fields
from baldwhisper_mlx.server.places import Places, while_connected
from baldwhisper_mlx.server.responses import Deltas, answer, done_event, event_bytes
from baldwhisper_mlx.server.uploads import Form, discard_body, received_form
from baldwhisper_mlx.server.worker import Worker
from baldwhisper_mlx.transcription.options import TranscribeOptions

_log = logging.getLogger("baldwhisper_mlx.server")


@dataclass(frozen=True)
class Service:
    """What the requests share."""

    models: Models
    worker: Worker
    places: Places
    max_upload: int
    """Bytes of a file."""


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
        async with self._service.places.decoding:
            samples = await _decoded(form)
            results = results_of(self._service.worker, samples, loaded, parameters.options)
            async with contextlib.aclosing(results):
                if parameters.stream:
                    await _stream(results, send)
                    return
                async for result in results:
                    if isinstance(result, Transcript):
                        await answer(result, parameters)(scope, receive, send)


async def _decoded(form: Form) -> Samples:
    unwanted = threading.Event()

    def check() -> None:
        if unwanted.is_set():
            raise ClientDisconnect

    try:
        return await asyncio.to_thread(form.samples, check)
    finally:
        unwanted.set()


async def results_of(
    worker: Worker, samples: Samples, loaded: LoadedModel, options: TranscribeOptions
) -> AsyncGenerator[Result, None]:
    """What the worker delivers, as it comes; errors are raised, and the end cancels the job.

    Args:
        worker: that transcribes.
        samples: of the recording, at 16 kHz (n,).
        loaded: the model.
        options: of the transcription.
    """
    loop, results = asyncio.get_running_loop(), asyncio.Queue[Result]()

    def deliver(result: Result) -> None:
        # The loop is closed if the server was made to stop at once.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(results.put_nowait, result)

    job = Job(samples, loaded, options, deliver)
    worker.submit(job)
    try:
        while True:
            result = await results.get()
            if isinstance(result, Exception):
                raise result
            yield result
            if isinstance(result, Transcript):
                return
    finally:
        job.cancel()


async def _stream(results: AsyncIterator[Result], send: Send) -> None:
    """Sends events; an error in the middle is one, too, because the status has been sent."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    deltas = Deltas()
    try:
        async for result in results:
            assert not isinstance(result, Exception)
            event = done_event(result) if isinstance(result, Transcript) else deltas.of(result)
            if event is not None:
                body = event_bytes(event)
                await send({"type": "http.response.body", "body": body, "more_body": True})
    except Exception:
        _log.exception("a transcription failed")
        body = event_bytes(ApiError(500, INTERNAL, code="internal_error").body(), "error")
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
