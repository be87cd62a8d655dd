"""A server on a thread of the test's process, and clients of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.applications import Starlette

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.server.app import Settings, create_app
from baldwhisper_mlx.server.listening import listening_socket, make_server, url_of
from baldwhisper_mlx.server.models import Models
from baldwhisper_mlx.server.transcriptions import Service

SPEECH = Path(__file__).parents[3] / "baldwhisper_mlx/assets/speech.flac"


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    port: int
    service: Service
    app: Starlette

    def client(self, **options: Any) -> openai.OpenAI:
        """The real client, which does not retry unless it is asked to."""
        defaults: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": 60}
        return openai.OpenAI(base_url=f"{self.url}/v1", **(defaults | options))


Serve = Callable[..., Running]


@contextmanager
def running(models: Models, **settings: Any) -> Iterator[Running]:
    """A server with these models, until the end of the block."""
    app = create_app(models, Settings(**settings))
    with listening_socket("127.0.0.1", 0) as listener:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port: int = listener.getsockname()[1]
            yield Running(url_of(listener), port, app.state.service, app)
        finally:
            server.should_exit = True
            thread.join()


def is_free(server: Running) -> bool:
    """Whether all places are free, after a while."""
    deadline = time.monotonic() + 20
    while server.service.places.taken and time.monotonic() < deadline:
        time.sleep(0.01)
    return server.service.places.taken == 0


@pytest.fixture(scope="session")
def bundled() -> LoadedModel:
    return load_model()


@pytest.fixture(scope="session")
def bilingual(model_folder: Path) -> LoadedModel:
    """Random weights, English and French."""
    return load_model(model_folder)


@pytest.fixture
def serve(bundled: LoadedModel, bilingual: LoadedModel) -> Iterator[Serve]:
    """Starts servers with the bundled model as the default, and one that knows two languages."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Running:
            models = Models([("tiny-en", bundled), ("tiny", bilingual)])
            return stack.enter_context(running(models, **settings))

        yield start


@pytest.fixture(scope="module")
def server(bundled: LoadedModel, bilingual: LoadedModel) -> Iterator[Running]:
    """One server for the tests of a module."""
    with running(Models([("tiny-en", bundled), ("tiny", bilingual)])) as found:
        yield found
