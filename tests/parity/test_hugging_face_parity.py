"""The Hugging Face export compared with the MLX one: other programs give the same text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from baldwhisper_convert.export.hugging_face import ExportWarning, export_hf
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.options import DecodingOptions
from tests.support import tiny

SAMPLE = Path(__file__).parents[2] / "examples" / "sample.wav"
LENGTH = 40


@pytest.fixture(scope="module", params=tiny.FORMS)
def exports(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadedModel]:
    """The Hugging Face folder of a checkpoint, and its MLX export."""
    checkpoint = tiny.tiny_form(request.param)
    root = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExportWarning)
        folder = export_hf(checkpoint, root / "hf", dtype="float32")
    return folder, load_model(export_mlx(checkpoint, root / "mlx", dtype="float32"))


@pytest.fixture(scope="module")
def hugging_face(exports: tuple[Path, LoadedModel]) -> Any:
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(exports[0], local_files_only=True).eval()


@pytest.fixture(scope="module")
def features(exports: tuple[Path, LoadedModel]) -> torch.Tensor:
    """Log-mel (1, 80, 3000) of real speech, by the folder's own preprocessor."""
    from transformers import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor.from_pretrained(exports[0], local_files_only=True)
    samples = load_audio(SAMPLE)
    found = extract(samples, sampling_rate=16_000, return_tensors="pt").input_features
    assert isinstance(found, torch.Tensor)
    return found


def ours(loaded: LoadedModel, features: torch.Tensor, *, timestamps: bool) -> list[int]:
    """Prompt and greedy tokens of the runtime."""
    loaded.decoder.encode(mx.array(features.numpy()).transpose(0, 2, 1), [3000])
    prompt = loaded.tokenizer.sot_sequence("fr", "transcribe", timestamps=timestamps)
    options = DecodingOptions(timestamps=timestamps, max_tokens=LENGTH)
    return prompt + loaded.decoder.decode(prompt, options)[0].tokens


def test_logits(
    exports: tuple[Path, LoadedModel], hugging_face: Any, features: torch.Tensor
) -> None:
    tokens = torch.randint(0, 2000, (1, 9), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        theirs = hugging_face(input_features=features, decoder_input_ids=tokens).logits
    model = exports[1].model
    cache = model.make_cache()
    model.encode(mx.array(features.numpy()).transpose(0, 2, 1), [3000], cache)
    logits = model.logits(model.decoder(mx.array(tokens.numpy()), cache))
    np.testing.assert_allclose(np.array(logits), theirs.numpy(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("timestamps", [True, False])
def test_transformers_generates_the_same_tokens(
    timestamps: bool,
    exports: tuple[Path, LoadedModel],
    hugging_face: Any,
    features: torch.Tensor,
) -> None:
    """Prompt, suppressed tokens and timestamp rules all come from `generation_config.json`."""
    generated = hugging_face.generate(
        features,
        language="fr",
        task="transcribe",
        return_timestamps=timestamps,
        max_new_tokens=LENGTH,
        force_unique_generate_call=True,  # random weights end their windows anywhere
    )[0].tolist()
    assert len(set(generated)) > 6
    assert generated == ours(exports[1], features, timestamps=timestamps)


@pytest.fixture(scope="module")
def ctranslate2_folder(exports: tuple[Path, LoadedModel]) -> Path:
    converters = pytest.importorskip("ctranslate2.converters")
    folder = exports[0].with_name("ct2")
    files = ["tokenizer.json", "preprocessor_config.json"]
    converters.TransformersConverter(str(exports[0]), copy_files=files).convert(str(folder))
    return folder


def test_ctranslate2_generates_the_same_tokens(
    ctranslate2_folder: Path, exports: tuple[Path, LoadedModel], features: torch.Tensor
) -> None:
    import ctranslate2

    model = ctranslate2.models.Whisper(str(ctranslate2_folder), compute_type="float32")
    expected = ours(exports[1], features, timestamps=False)
    prompt, text = expected[:4], expected[4:]
    audio = ctranslate2.StorageView.from_array(features.numpy())
    # Its max_length counts the prompt, and half of it is kept for one.
    result = model.generate(audio, [prompt], beam_size=1, max_length=4 * LENGTH)[0]
    assert len(set(text)) > 3
    assert result.sequences_ids[0][:LENGTH] == text


def test_faster_whisper_takes_it(ctranslate2_folder: Path) -> None:
    faster_whisper = pytest.importorskip("faster_whisper")
    model = faster_whisper.WhisperModel(str(ctranslate2_folder), compute_type="float32")
    # English, because it takes small vocabularies for English-only ones.
    segments, info = model.transcribe(load_audio(SAMPLE)[:32_000], language="en", temperature=0.0)
    assert info.duration == pytest.approx(2.0)
    assert all(segment.end > segment.start for segment in segments)
    french = tiny.tiny_form("dense").vocabulary.special_tokens["<|fr|>"]
    assert model.hf_tokenizer.token_to_id("<|fr|>") == french
