"""Stage folders: manifests that survive a round trip, and whose work is whose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import fingerprint
from baldwhisper_convert.pipeline.manifest import (
    MANIFEST_FILE,
    Manifest,
    read_manifest,
    teacher_layers,
    versions,
    write_manifest,
)
from baldwhisper_convert.pipeline.recipe import Recipe, StageRecipe
from baldwhisper_convert.pipeline.run import Pipeline
from tests.support.tiny import (
    edit_json,
    factorized_state,
    tiny_dims,
    tiny_hf_folder,
    tiny_hf_model,
)
from tests.support.tiny_speech import tiny_teacher

MANIFEST = Manifest(
    stage="merge",
    parent="p" * 16,
    teacher="t" * 16,
    settings={"alpha": 0.5, "groups": (2, 2, 2), "nested": {"a": None}},
    data={"train": "abc/3"},
    seed=7,
    teacher_layers=((0, 1), (2, 3), (5,)),
    metrics={"kl": 1.25},
)


def test_round_trip(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    found = read_manifest(tmp_path)
    assert found is not None
    assert found.same_work(MANIFEST)
    assert found.teacher_layers == MANIFEST.teacher_layers
    assert found.metrics == MANIFEST.metrics
    assert found.versions == versions()
    # The package's own version may end in the build, such as +cu130.
    assert found.versions["torch"] in (torch.__version__, torch.__version__.partition("+")[0])
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]
    write_manifest(tmp_path, found)
    assert read_manifest(tmp_path) == found


def test_no_manifest(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"metrics": {"kl": 9.0}}, True),
        ({"versions": {"python": "2.7"}}, True),
        ({"teacher_layers": None}, True),
        ({"settings": {"alpha": 0.5, "groups": [2, 2, 2], "nested": {"a": None}}}, True),
        ({"stage": "distill"}, False),
        ({"parent": "q"}, False),
        ({"teacher": None}, False),
        ({"settings": {"alpha": 0.5}}, False),
        ({"data": {"train": "abc/4"}}, False),
        ({"seed": 8}, False),
    ],
)
def test_same_work(change: dict[str, Any], same: bool) -> None:
    other = replace(MANIFEST, **change)
    assert MANIFEST.same_work(other) == same
    assert other.same_work(MANIFEST) == same


@pytest.mark.parametrize("layers", [((0, 1), ()), ((1,), (0,)), ((0, 1), (1, 2)), ((2, 1),)])
def test_teacher_layers_are_increasing_groups(layers: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="not increasing groups"):
        replace(MANIFEST, teacher_layers=layers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"manifest_version": 2}, "not a manifest of version 1"),
        ({"unknown": 1}, "expected the fields"),
        ({"stage": None}, "expected the fields"),
        ({"teacher_layers": [[1], [0]]}, "not increasing groups"),
        ({"teacher_layers": 5}, "not iterable"),
        ({"teacher_layers": [0, 1]}, "not iterable"),
    ],
)
def test_damaged_manifests_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_manifest(tmp_path, MANIFEST)
    edit_json(tmp_path / MANIFEST_FILE, **change)
    with pytest.raises(ValueError, match=rf"{MANIFEST_FILE}: .*{message}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", "null"])
def test_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(ValueError, match=MANIFEST_FILE):
        read_manifest(tmp_path)


def test_teacher_layers_of_a_folder(tmp_path: Path) -> None:
    assert teacher_layers(tmp_path, 2) == ((0,), (1,))
    assert teacher_layers(tmp_path / "nowhere", 1) == ((0,),)
    write_manifest(tmp_path, replace(MANIFEST, teacher_layers=None))
    assert teacher_layers(tmp_path, 3) == ((0,), (1,), (2,))
    write_manifest(tmp_path, MANIFEST)
    assert teacher_layers(tmp_path, 3) == MANIFEST.teacher_layers
    with pytest.raises(ValueError, match=rf"4 decoder layers, but {MANIFEST_FILE} lists"):
        teacher_layers(tmp_path, 4)


def test_fingerprint_is_of_the_values() -> None:
    """Not of their type, order, memory layout or place; but of every value, name and shape."""
    checkpoint = tiny_teacher()
    half = replace(checkpoint, state={n: t.half() for n, t in checkpoint.state.items()})
    same = [
        replace(half, state={n: t.float() for n, t in half.state.items()}),
        replace(half, state={n: t.double() for n, t in half.state.items()}),
        replace(half, state=dict(reversed(half.state.items())), source="elsewhere"),
        replace(half, state={n: t.t().contiguous().t() if t.ndim == 2 else t
                             for n, t in half.state.items()}),
    ]  # fmt: skip
    assert {fingerprint(one) for one in same} == {fingerprint(half)}
    assert fingerprint(half) != fingerprint(checkpoint)
    name = "decoder.blocks.0.attn.query.bias"
    changed = checkpoint.state[name].clone()
    changed[3] = torch.nextafter(changed[3], torch.tensor(9.0))
    other = replace(checkpoint, state=checkpoint.state | {name: changed})
    assert fingerprint(other) != fingerprint(checkpoint)
    swapped = checkpoint.state | {
        name: checkpoint.state["decoder.blocks.0.attn.value.bias"],
        "decoder.blocks.0.attn.value.bias": checkpoint.state[name],
    }
    assert fingerprint(replace(checkpoint, state=swapped)) != fingerprint(checkpoint)


def test_fingerprint_knows_dense_ids() -> None:
    checkpoint = tiny_teacher()
    state = factorized_state(checkpoint.dims, 4, dense_rows=5)
    name = "decoder.token_embedding.dense_ids"
    small = state | {name: state[name].to(torch.int32)}
    flipped = state | {name: state[name].flip(0)}
    first, second, third = (
        fingerprint(replace(checkpoint, state=one)) for one in (state, small, flipped)
    )
    assert first == second != third
    assert len(first) == 16


def test_manifests_hold_plain_values_only(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_manifest(tmp_path, replace(MANIFEST, metrics={"path": tmp_path}))
    assert list(tmp_path.iterdir()) == []
    write_manifest(tmp_path, MANIFEST)
    assert json.loads((tmp_path / MANIFEST_FILE).read_text())["manifest_version"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_layers": "ab"},
        {"teacher_layers": 5},
        {"teacher_layers": [["a"], [1]]},
        {"teacher_layers": [[True], [2]]},
        {"settings": [1]},
        {"metrics": None},
        {"stage": 1},
    ],
    ids=str,
)
def test_a_damaged_manifest_says_what_to_delete(change: dict[str, Any], tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest(stage="merge", parent="a"))
    assert read_manifest(tmp_path) is not None
    edit_json(tmp_path / MANIFEST_FILE, **change)
    with pytest.raises(ValueError, match=r"manifest\.json: .*; delete .* to make the stage again"):
        read_manifest(tmp_path)


def test_a_stage_whose_model_is_damaged_says_what_to_delete(tmp_path: Path) -> None:
    teacher = tiny_hf_folder(tmp_path / "teacher", tiny_hf_model(tiny_dims()))
    recipe = Recipe(teacher=str(teacher), stages=(StageRecipe(stage="merge"),))
    folder = Pipeline(recipe, tmp_path / "out").run()
    for path in folder.iterdir():
        if path.name != MANIFEST_FILE:
            path.unlink()
    with pytest.raises(ValueError, match=r"01-merge: no weights.*; delete .*01-merge to make"):
        Pipeline(recipe, tmp_path / "out").run()
