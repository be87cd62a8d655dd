"""Damaged and made-up sources and progress files: a sound result or one error, never a crash."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from baldwhisper_convert.checkpoint import key_maps
from baldwhisper_convert.checkpoint.vocabulary import Vocabulary, from_tokens
from baldwhisper_convert.data.prepared import SETTINGS_FILE, WINDOWS_FILE, Prepared
from baldwhisper_convert.pipeline.manifest import MANIFEST_FILE, read_manifest
from baldwhisper_convert.pipeline.recipe import read_recipe
from baldwhisper_convert.readers.ctranslate2 import read_ctranslate2
from baldwhisper_convert.readers.formats import read_weights
from baldwhisper_convert.readers.model_folder import is_model_folder, read_model_folder
from baldwhisper_convert.readers.sidecars import stated_in_card
from baldwhisper_convert.readers.tokenizer import read_tokenizer
from baldwhisper_convert.readers.torch_files import as_tensors, load_torch_file
from baldwhisper_convert.readers.weight_files import WeightFiles, load_tensors
from baldwhisper_convert.training.checkpoints import Progress
from baldwhisper_convert.training.log import read_log
from tests.support import tiny, tiny_vocabulary

FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
flips = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=6)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**10, 2**63, -1, "<|en|>", "9" * 5000])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def flipped(data: bytes, changes: list[tuple[float, int]], kept: float = 1.0) -> bytes:
    """Some bytes changed, and the end cut off."""
    result = bytearray(data)
    for place, bits in changes:
        result[int(place * (len(data) - 1))] ^= bits
    return bytes(result[: int(len(data) * kept)])


def outcome(call: Callable[[], Any], path: Path) -> Any:
    """What a reader returns; its error must name a file. Any other exception is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except (ValueError, FileNotFoundError) as error:
            text = str(error)
            assert str(path) in text
            assert len(text) < 10_000
            return None


TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "b": torch.zeros(2, dtype=torch.bfloat16),
    "c": torch.tensor(3),
}


def torch_bytes(archive: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(12.0).reshape(3, 4), b=np.zeros((), np.int8))
    return buffer.getvalue()


FILES = {
    "zip.bin": torch_bytes(archive=True),
    "legacy.bin": torch_bytes(archive=False),
    "model.safetensors": save(TENSORS),
    "weights.npz": npz_bytes(),
}


def test_an_archive_that_says_it_is_one_of_several(tmp_path: Path) -> None:
    content = bytearray(FILES["zip.bin"])
    content[content.rindex(b"PK\x06\x07") + 4] = 1  # number of a disk, in the ZIP64 locator
    path = tmp_path / "zip.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"zip\.bin: "):
        load_torch_file(path)


@pytest.mark.parametrize("name", FILES)
@FUZZ
@given(changes=flips, kept=st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.01]))
def test_weights_with_flipped_bits(name: str, tmp_path: Path, changes: Any, kept: float) -> None:
    path = tmp_path / name
    path.write_bytes(flipped(FILES[name], changes, kept))
    if path.suffix == ".bin":
        result = outcome(lambda: as_tensors(load_torch_file(path), str(path)), path)
    else:
        kind = path.suffix[1:]
        result = outcome(lambda: load_tensors(WeightFiles(path.name, kind), tmp_path), path)
    for tensor in (result or {}).values():
        assert tensor.numel() * tensor.element_size() <= 10**6
        tensor.clone()  # its memory can be read


@FUZZ
@given(content=st.binary(max_size=60))
def test_torch_files_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x80\x02" + content)
    outcome(lambda: as_tensors(load_torch_file(path), str(path)), path)


@FUZZ
@given(changes=flips, kept=st.sampled_from([1.0, 1.0, 0.9, 0.3]))
def test_ctranslate2_with_flipped_bits(
    tmp_path: Path, ctranslate2_folders: dict[str, Path], changes: Any, kept: float
) -> None:
    data = (ctranslate2_folders["int8"] / "model.bin").read_bytes()
    # Names, shapes and scalars are spread over the file; so the flips go to its beginning too.
    head = flipped(data[:4000], changes)
    path = tmp_path / "model.bin"
    path.write_bytes((head + flipped(data[4000:], changes))[: int(len(data) * kept)])
    outcome(lambda: read_ctranslate2(path), path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@FUZZ
@given(data=st.data(), value=values)
def test_configs_with_any_value(name: str, hf_copy: Path, data: Any, value: Any) -> None:
    path = hf_copy / name
    original = path.read_text()
    raw = json.loads(original)
    key = data.draw(st.sampled_from([*raw, "quantization_config", "n_mels", "quantization"]))
    path.write_text(json.dumps(raw | {key: value}))
    try:
        outcome(lambda: read_weights(hf_copy), hf_copy)
    finally:
        path.write_text(original)


@FUZZ
@given(value=values)
def test_sidecars_of_any_json(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(value))
    assert not is_model_folder(tmp_path)
    outcome(lambda: read_model_folder(tmp_path), path)


@FUZZ
@given(content=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode()))
def test_any_model_card(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README.md").write_bytes(b"---\n" + content + b"\n---\n")
    assert isinstance(stated_in_card(tmp_path, "license"), str | None)


@FUZZ
@given(data=st.data(), value=values)
def test_tokenizers_with_any_value(tmp_path: Path, data: Any, value: Any) -> None:
    """One value anywhere in tokenizer.json is replaced."""
    path = tiny_vocabulary.tiny_tokenizer_json(tmp_path)
    raw = json.loads(path.read_text())
    parent: Any = raw
    for _ in range(data.draw(st.integers(0, 3))):
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        child = parent[data.draw(st.sampled_from(keys))]
        if not isinstance(child, dict | list) or not child:
            break
        parent = child
    if isinstance(parent, dict):
        parent[data.draw(st.sampled_from(sorted(parent)) | st.text(max_size=5))] = value
    else:
        parent[data.draw(st.integers(0, len(parent) - 1))] = value
    path.write_text(json.dumps(raw))
    vocabulary = outcome(lambda: read_tokenizer(tmp_path, 2014), path)
    if vocabulary is not None:
        again = Vocabulary(vocabulary.ranks, vocabulary.special_tokens, vocabulary.timestamp_begin)
        assert again == vocabulary


@FUZZ
@given(
    late=st.dictionaries(
        st.sampled_from(["<|bam|>", "<|dyu|>", "<|ff|>", "[PAD]", "<pad>"]),
        st.integers(2014, 2030), max_size=4,
    )
)  # fmt: skip
def test_added_tokens_keep_their_rows(late: dict[str, int]) -> None:
    plain = tiny_vocabulary.tiny_vocabulary()
    added = dict(plain.special_tokens) | late
    if len(set(late.values())) < len(late):
        return
    merges = [(a, b) for a, b in tiny_vocabulary.spelled_merges()]
    vocabulary = from_tokens(tiny_vocabulary.spelled_tokens(plain), added, merges)
    rows = vocabulary.source_ids or tuple(range(vocabulary.n_vocab))
    assert len(set(rows)) == len(rows) == vocabulary.n_vocab
    for name, i in vocabulary.special_tokens.items():
        assert rows[i] == added[name]
    languages = {name for name in late if name.startswith("<|")}
    assert vocabulary.special_tokens.keys() == plain.special_tokens.keys() | languages


NAMES = [name for name in tiny.tiny_state() if ".blocks.1." in name]


@FUZZ
@given(
    name=st.sampled_from(NAMES),
    prefix=st.lists(st.sampled_from(["module", "_orig_mod", "model", "_fsdp_wrapped_module"])),
    place=st.integers(0, 3),
)
def test_wrappers_are_taken_off_wherever_they_are(name: str, prefix: list[str], place: int) -> None:
    parts = name.split(".")
    inner = [part for part in prefix if part != "model"]
    wrapped = ".".join([*prefix, *parts[:place], *inner, *parts[place:]])
    assert key_maps.unwrapped([wrapped], "x") == {wrapped: name}
    assert key_maps.rename([name], key_maps.OPENAI, "x") == {name: name}


PROGRESS = json.dumps({"step": 5, "seconds": 1.5, "best": {}, "evals_since_best": 0})
MANIFEST = json.dumps(
    {
        "manifest_version": 1, "stage": "merge", "parent": "a", "teacher": None, "settings": {},
        "data": {}, "seed": 0, "teacher_layers": [[0], [1]], "metrics": {}, "versions": {},
    }
)  # fmt: skip
PREPARED = json.dumps(
    {
        "key": "k", "audio": "a", "features": "mel", "width": 4, "complete": True,
        "report": {"settings": {"language": "en", "windows": {"margin": 0.5}}},
    }
)  # fmt: skip
PROGRESS_FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "progress.json": (PROGRESS, Progress.from_file),
    MANIFEST_FILE: (MANIFEST, lambda path: read_manifest(path.parent)),
    SETTINGS_FILE: (PREPARED, lambda path: Prepared(path.parent)),
    "log.jsonl": ('{"step": 1, "loss": 0.5}\n{"step": 2, "dev": {}}\n', read_log),
    WINDOWS_FILE: ('{"kind": "speech"}\n', lambda path: Prepared(path.parent)),
    "recipe.toml": ('teacher = "a"\n[[stages]]\nstage = "merge"\nmerge.alpha = 0.1\n', read_recipe),
}


@pytest.mark.parametrize("name", PROGRESS_FILES)
@FUZZ
@given(changes=flips, kept=st.sampled_from([1.0, 1.0, 0.7, 0.0]), value=values, whole=st.booleans())
def test_progress_files_with_anything_in_them(
    name: str, tmp_path: Path, changes: Any, kept: float, value: Any, whole: bool
) -> None:
    content, read = PROGRESS_FILES[name]
    path = tmp_path / name
    if name == WINDOWS_FILE:
        (tmp_path / SETTINGS_FILE).write_text(PREPARED)
    (tmp_path / "features.f16").write_bytes(b"")
    data = json.dumps(value).encode() if whole else flipped(content.encode(), changes, kept)
    path.write_bytes(data)
    outcome(lambda: read(path), tmp_path)


@pytest.mark.parametrize("key", ["stage", "teacher_layers", "settings"])
def test_a_long_value_is_not_quoted_whole(key: str, tmp_path: Path) -> None:
    manifest = json.loads(MANIFEST) | {key: [9] * 20_000 if key == "stage" else "9" * 20_000}
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=key) as error:
        read_manifest(tmp_path)
    assert len(str(error.value)) < 1000


@FUZZ
@given(data=st.data(), value=values)
def test_progress_files_with_any_value(tmp_path: Path, data: Any, value: Any) -> None:
    name = data.draw(st.sampled_from(["progress.json", MANIFEST_FILE, SETTINGS_FILE]))
    content, read = PROGRESS_FILES[name]
    raw = copy.deepcopy(json.loads(content))
    raw[data.draw(st.sampled_from(sorted(raw)))] = value
    (tmp_path / name).write_text(json.dumps(raw))
    (tmp_path / "features.f16").write_bytes(b"")
    outcome(lambda: read(tmp_path / name), tmp_path)
