"""The same random weights in torch and in the runtime, compared on the CPU.

On the CPU, because these tests ask whether the same formula is computed, to 1e-4 and token for
token, and not how a GPU rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import mlx.core as mx
import pytest

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from tests.support import tiny


@pytest.fixture(autouse=True, scope="package")
def on_the_cpu() -> Iterator[None]:
    device = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(device)


@pytest.fixture(scope="package")
def checkpoint() -> Checkpoint:
    return tiny.tiny_checkpoint()


@pytest.fixture(scope="package")
def loaded(
    on_the_cpu: None, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    folder = tmp_path_factory.mktemp("parity") / "tiny"
    return load_model(export_mlx(checkpoint, folder, dtype="float32"))


@pytest.fixture(scope="package")
def openai(checkpoint: Checkpoint) -> Any:
    """openai-whisper's model with the same weights."""
    from whisper.model import ModelDimensions, Whisper

    model = Whisper(ModelDimensions(**asdict(checkpoint.dims)))
    model.load_state_dict(checkpoint.state)
    return model.eval()


@pytest.fixture
def same_vocabulary(monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel) -> Iterator[None]:
    """Makes openai-whisper use the tiny vocabulary."""
    import tiktoken
    from whisper import tokenizer as whisper_tokenizer

    ours = loaded.tokenizer
    begin = ours.timestamp_begin
    stamps = {f"<|{i * 0.02:.2f}|>": begin + i for i in range(1501)}
    encoding = tiktoken.Encoding(
        name="tiny",
        pat_str=ours.encoding._pat_str,
        mergeable_ranks=ours.encoding._mergeable_ranks,
        special_tokens=ours.special_tokens | stamps,
    )
    monkeypatch.setattr(whisper_tokenizer, "get_encoding", lambda **_: encoding)
    whisper_tokenizer.get_tokenizer.cache_clear()
    yield
    whisper_tokenizer.get_tokenizer.cache_clear()


@pytest.fixture
def multilingual(monkeypatch: pytest.MonkeyPatch, openai: Any) -> Any:
    """openai-whisper tells by the vocabulary's size, which is not Whisper's here."""
    monkeypatch.setattr(type(openai), "is_multilingual", property(lambda _: True))
    monkeypatch.setattr(type(openai), "num_languages", property(lambda _: 99))
    return openai
