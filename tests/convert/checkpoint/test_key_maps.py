"""The key tables: every row reachable, nothing ambiguous, unknown names reported."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_convert.checkpoint import key_maps
from baldwhisper_convert.checkpoint.state import canonical_shapes, fuse, split_fused
from tests.support import tiny

TABLES = {
    "HUGGING_FACE": key_maps.HUGGING_FACE,
    "OPENAI": key_maps.OPENAI,
    "MLX_COMMUNITY": key_maps.MLX_COMMUNITY,
    "CTRANSLATE2": key_maps.CTRANSLATE2,
    "MLX_EXPORT": key_maps.MLX_EXPORT,
}
FUSED_PARTS = [part for parts in key_maps.FUSED.values() for part in parts]


def filled(pattern: str) -> list[str]:
    """All names a pattern stands for, with layer 10."""
    return [
        pattern.format(side=side, i=10, leaf=leaf)
        for side in ("encoder", "decoder")
        for leaf in ("weight", "bias")
    ]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_name_fits_exactly_one_row(table: dict[str, str | None]) -> None:
    for pattern in table:
        for name in filled(pattern):
            assert [row for row in table if key_maps.match(row, name) is not None] == [pattern]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_targets_use_only_the_placeholders_of_their_row(table: dict[str, str | None]) -> None:
    for pattern, target in table.items():
        if target is not None:
            assert set(re.findall(r"{\w+}", pattern)) == set(re.findall(r"{\w+}", target))


@pytest.mark.parametrize("name", ["HUGGING_FACE", "OPENAI", "MLX_COMMUNITY", "CTRANSLATE2"])
def test_a_table_reaches_every_canonical_name(name: str) -> None:
    targets = [target for target in TABLES[name].values() if target is not None]
    targets = [p for t in targets for p in key_maps.FUSED.get(t, (t,))]
    for canonical in canonical_shapes(tiny.tiny_dims()):
        assert key_maps.match_any(targets, canonical) is not None, canonical


def test_export_table_takes_every_canonical_name_once_fused() -> None:
    names = [*fuse(tiny.tiny_state())]
    renamed = key_maps.rename(names, key_maps.MLX_EXPORT, "tiny")
    assert None not in renamed.values()
    assert renamed["encoder.blocks.1.mlp.2.bias"] == "encoder.blocks.1.mlp2.bias"
    assert not any(key_maps.match_any(FUSED_PARTS[1:], new or "") for new in renamed.values())


def test_rename_drops_on_purpose_and_keeps_the_order() -> None:
    names = ["proj_out.weight", "decoder.layers.3.fc1.bias", "encoder.conv1.weight"]
    assert key_maps.rename(names, key_maps.HUGGING_FACE, "x") == {
        "proj_out.weight": None,
        "decoder.layers.3.fc1.bias": "decoder.blocks.3.mlp.0.bias",
        "encoder.conv1.weight": "encoder.conv1.weight",
    }


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.x.fc1.bias",
        "encoder.layers.01.fc1.bias",
        "encoder.layers.-1.fc1.bias",
        "encoder.layers.1.fc1.bias.extra",
        "encoder.layers.1.self_attn.k_proj.bias",
        "encoderXconv1.weight",
        "middle.layers.1.fc1.bias",
        "",
    ],
)
def test_near_misses_are_unexpected(name: str) -> None:
    with pytest.raises(ValueError, match=r"model\.bin: .*unexpected"):
        key_maps.rename([name], key_maps.HUGGING_FACE, "model.bin")


def test_all_unexpected_names_are_reported_then_counted() -> None:
    with pytest.raises(ValueError, match=r"unexpected a00, .*a11 and 8 more$"):
        key_maps.rename([f"a{i:02}" for i in range(20)], key_maps.OPENAI, "x")


def test_two_names_that_become_one_are_an_error() -> None:
    table: dict[str, str | None] = {"a.{i}": "c.{i}", "b.{i}": "c.{i}"}
    with pytest.raises(ValueError, match=r"a\.1 and b\.1 are both c\.1"):
        key_maps.rename(["a.1", "b.2", "b.1"], table, "x")


@given(st.text())
def test_arbitrary_names_are_refused_or_mapped_but_never_crash(name: str) -> None:
    for table in TABLES.values():
        error = tiny.error_of(key_maps.rename, [name], table, "x")
        assert error is None or error.startswith("x: ")


@given(st.lists(st.text(max_size=5)), st.integers(1, 5))
def test_listed_names_the_first_and_counts_the_rest(names: list[str], limit: int) -> None:
    text = key_maps.listed(names, limit)
    assert text.startswith(", ".join(sorted(names)[:limit]))
    assert text.endswith(f" and {len(names) - limit} more") == (len(names) > limit)


def test_fusing_is_undone_by_splitting() -> None:
    state = tiny.tiny_state()
    fused = fuse(state)
    assert fused["decoder.blocks.2.attn.qkv.weight"].shape == (192, 64)
    assert fused["decoder.blocks.2.cross_attn.kv.bias"].shape == (128,)
    back = split_fused(fused, "x")
    assert back.keys() == state.keys()
    assert all(back[name].equal(state[name]) for name in state)


def test_rows_of_fused_projections_are_query_key_value() -> None:
    state = tiny.tiny_state()
    fused = fuse(state)
    weight, bias = (fused[f"encoder.blocks.0.attn.qkv.{leaf}"] for leaf in ("weight", "bias"))
    for row, part in enumerate(("query", "key", "value")):
        rows = slice(64 * row, 64 * (row + 1))
        assert weight[rows].equal(state[f"encoder.blocks.0.attn.{part}.weight"])
    assert bias[:64].equal(state["encoder.blocks.0.attn.query.bias"])
    assert not bias[64:128].any()
    assert bias[128:].equal(state["encoder.blocks.0.attn.value.bias"])


def test_a_key_bias_is_an_error() -> None:
    fused = fuse(tiny.tiny_state())
    fused["encoder.blocks.1.attn.qkv.bias"][70] = 1
    with pytest.raises(ValueError, match=r"encoder\.blocks\.1\.attn\.key\.bias is not zero"):
        split_fused(fused, "x")


def test_fused_rows_that_do_not_divide_are_an_error() -> None:
    fused = fuse(tiny.tiny_state())
    name = "encoder.blocks.1.attn.qkv.bias"
    fused[name] = fused[name][:-1]
    with pytest.raises(ValueError, match=r"attn\.qkv\.bias has shape \[191\]"):
        split_fused(fused, "x")
