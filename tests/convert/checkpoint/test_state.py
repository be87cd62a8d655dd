"""Shapes against transformers at every Whisper size, and the checks of a state."""

from __future__ import annotations

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from baldwhisper_convert.checkpoint.key_maps import HF_DIMENSIONS, HUGGING_FACE, rename
from baldwhisper_convert.checkpoint.state import (
    Dimensions,
    EmbeddingForm,
    canonical_shapes,
    check_state,
)
from baldwhisper_mlx.config import default_alignment_heads
from baldwhisper_mlx.model.positions import sinusoids
from tests.support import tiny

# name: mels, vocabulary, width, heads, encoder layers, decoder layers, million parameters
SIZES = {
    "tiny.en": (80, 51864, 384, 6, 4, 4, 37.8),
    "tiny": (80, 51865, 384, 6, 4, 4, 37.8),
    "base": (80, 51865, 512, 8, 6, 6, 72.6),
    "small": (80, 51865, 768, 12, 12, 12, 241.7),
    "medium": (80, 51865, 1024, 16, 24, 24, 763.9),
    "large-v2": (80, 51865, 1280, 20, 32, 32, 1543.3),
    "large-v3": (128, 51866, 1280, 20, 32, 32, 1543.5),
    "large-v3-turbo": (128, 51866, 1280, 20, 32, 4, 808.9),
    "distil-large-v3": (128, 51866, 1280, 20, 32, 2, 756.4),
}


@pytest.mark.parametrize("size", SIZES)
def test_shapes_of_every_size_agree_with_transformers(size: str) -> None:
    mels, vocab, width, heads, encoder, decoder, millions = SIZES[size]
    dims = Dimensions(
        n_mels=mels,
        n_audio_ctx=1500,
        n_audio_state=width,
        n_audio_head=heads,
        n_audio_layer=encoder,
        n_vocab=vocab,
        n_text_ctx=448,
        n_text_state=width,
        n_text_head=heads,
        n_text_layer=decoder,
    )
    config = WhisperConfig(
        vocab_size=vocab,
        num_mel_bins=mels,
        d_model=width,
        encoder_layers=encoder,
        decoder_layers=decoder,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
    )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    found = {
        name.removeprefix("model."): tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
    }
    names = rename(found, HUGGING_FACE, size)
    shapes = canonical_shapes(dims)
    assert {new: found[old] for old, new in names.items() if new is not None} == shapes
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert total / 1e6 == pytest.approx(millions, abs=0.06)


def test_sinusoids_agree_with_openai() -> None:
    from whisper.model import sinusoids as openai_sinusoids

    ours = torch.from_numpy(sinusoids(1500, 512))
    torch.testing.assert_close(ours, openai_sinusoids(1500, 512), atol=3e-4, rtol=0)


def test_default_alignment_heads_are_openais() -> None:
    from whisper.model import ModelDimensions, Whisper

    for layers in (1, 2, 3, 4):
        dims = tiny.tiny_dims(n_text_layer=layers, n_audio_layer=1)
        expected = Whisper(ModelDimensions(**vars(dims))).alignment_heads.indices().T.tolist()
        assert [
            list(pair) for pair in default_alignment_heads(dims.n_text_layer, dims.n_text_head)
        ] == expected


def test_all_problems_of_a_state_are_named_at_once() -> None:
    dims, state = tiny.tiny_dims(), tiny.tiny_state()
    del state["decoder.ln.bias"]
    state["decoder.extra"] = torch.zeros(1)
    state["encoder.conv1.weight"] = torch.zeros(64, 81, 3)
    with pytest.raises(ValueError, match=r"^here: missing") as error:
        check_state(state, canonical_shapes(dims), "here")
    assert str(error.value) == (
        "here: missing decoder.ln.bias; unexpected decoder.extra; wrong shape of "
        "encoder.conv1.weight (expected [64, 80, 3], found [64, 81, 3])"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_value_that_is_no_number_names_its_tensor(value: float, dtype: torch.dtype) -> None:
    state = tiny.tiny_state()
    name = "decoder.blocks.1.mlp.0.weight"
    state[name] = state[name].to(dtype)
    state[name][3, 5] = value
    with pytest.raises(ValueError, match=r"decoder\.blocks\.1\.mlp\.0\.weight contains NaN"):
        check_state(state, canonical_shapes(tiny.tiny_dims()), "here")


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "float8_e5m2", "complex64"])
def test_only_plain_floating_point_types_are_weights(dtype: str) -> None:
    state = tiny.tiny_state()
    state["decoder.ln.bias"] = torch.zeros(64).to(getattr(torch, dtype))
    with pytest.raises(ValueError, match=rf"decoder\.ln\.bias holds torch\.{dtype}"):
        check_state(state, canonical_shapes(tiny.tiny_dims()), "here")


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, EmbeddingForm(rank=8)),
        ({"separate": True}, EmbeddingForm(rank=8, projections="separate")),
        ({"mean": True, "dense_rows": 5}, EmbeddingForm(rank=8, mean=True, dense_rows=5)),
    ],
)
def test_the_form_of_an_embedding_follows_from_the_state(
    options: dict[str, int | bool], form: EmbeddingForm
) -> None:
    dims = tiny.tiny_dims()
    state = tiny.factorized_state(dims, **options)  # type: ignore[arg-type]
    assert EmbeddingForm.of(state) == form
    check_state(state, canonical_shapes(dims, form), "here")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "80", None, 2**20])
def test_dimensions_are_positive_integers(value: object) -> None:
    raw = vars(tiny.tiny_dims()) | {"n_mels": value}
    with pytest.raises(ValueError, match="x: bad value for n_mels"):
        Dimensions.from_mapping(raw, "x")


def test_dimensions_need_all_ten_fields_and_no_other() -> None:
    raw = vars(tiny.tiny_dims())
    assert Dimensions.from_mapping(raw | {"n_more": 1}, "x") == tiny.tiny_dims()
    with pytest.raises(ValueError, match="x: missing n_mels"):
        Dimensions.from_mapping({k: v for k, v in raw.items() if k != "n_mels"}, "x")
    with pytest.raises(ValueError, match="found list"):
        Dimensions.from_mapping([], "x")


def test_a_dimension_is_bounded_and_named_as_in_its_file() -> None:
    raw = {HF_DIMENSIONS[field]: value for field, value in vars(tiny.tiny_dims()).items()}
    assert Dimensions.from_mapping(raw, "x", HF_DIMENSIONS).n_audio_layer == 2
    raw["encoder_layers"] = 1_048_575
    with pytest.raises(ValueError, match="x: bad value for encoder_layers: 1048575"):
        Dimensions.from_mapping(raw, "x", HF_DIMENSIONS)
