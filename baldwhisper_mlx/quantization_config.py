"""The part of `config.json` about quantized weights: which matrices, bits and group sizes.

Standard library only, like the rest of the config. Writer and reader follow one rule: every matrix
is quantized in the same way unless `overrides` names it. So the config alone determines which
tensors the weights file must have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baldwhisper_mlx.terminal import quoted

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
LEAVES = (".weight", ".scales", ".biases")
"""The tensors of a quantized matrix: packed integers, and the scale and bias of each group."""

# The first prefix that matches is taken, so the embedding does not count as decoder.
_PARTS = {
    "encoder.": "encoder",
    "decoder.token_embedding.": "token embedding",
    "decoder.": "decoder",
}


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """MLX's affine quantization: w = scale * q + bias, for groups of numbers in a row.

    Raises:
        ValueError: a value that MLX does not support.
    """

    bits: int
    """Bits of each integer q."""
    group_size: int
    """Consecutive numbers of a row that share scale and bias."""

    def __post_init__(self) -> None:
        for key, known in (("bits", BITS), ("group_size", GROUP_SIZES)):
            value = getattr(self, key)
            if type(value) is not int or value not in known:  # 8.0 == 8 and True == 1
                raise ValueError(f"config: bad value for quantization.{key}: {quoted(value)}")

    def __str__(self) -> str:
        return f"{self.bits} bits in groups of {self.group_size}"


@dataclass(frozen=True, kw_only=True)
class Quantization(Grouping):
    """How the matrices of a model are quantized."""

    overrides: dict[str, Grouping | None] = dataclasses.field(default_factory=dict, hash=False)
    """Path of a matrix to its own grouping, or to None if it stays floating point."""

    def of(self, path: str) -> Grouping | None:
        """Grouping of the matrix at `path`, such as "decoder.blocks.0.attn.out"; None: float."""
        default = Grouping(bits=self.bits, group_size=self.group_size)
        return self.overrides.get(path, default)

    @classmethod
    def from_dict(cls, raw: Any) -> Quantization:
        """Builds it from parsed JSON; `overrides` may be missing.

        Raises:
            ValueError: missing or unknown keys, or bad values.
        """
        entries = raw.get("overrides", {}) if isinstance(raw, dict) else None
        if not isinstance(entries, dict):
            raise ValueError(f"config: bad value for quantization: {quoted(raw)}")
        plain = {key: value for key, value in raw.items() if key != "overrides"}
        overrides = {
            path: None
            if entry is None
            else _grouping(Grouping, entry, f"overrides[{quoted(path)}]")
            for path, entry in entries.items()
        }
        read: Quantization = _grouping(cls, plain, "quantization", overrides=overrides)
        return read


def matrix_of(name: str) -> str:
    """Path of the matrix that a tensor of a quantized model belongs to.

    Example:
        >>> matrix_of("decoder.token_embedding.factors.scales")
        'decoder.token_embedding.factors'
    """
    for leaf in LEAVES:
        if name.endswith(leaf):
            return name.removesuffix(leaf)
    return name


def storage(
    sizes: Mapping[str, int], dtype: str, quantization: Quantization | None
) -> dict[str, str]:
    """Bytes of a model by part and precision.

    Args:
        sizes: name of each tensor to its bytes.
        dtype: type of the tensors that are not quantized.
        quantization: the model's.

    Returns:
        For each of "encoder", "decoder" and "token embedding" its sizes by precision, the
        largest first, such as "20.1 MB in 8 bits in groups of 64, 1.2 MB in float16".
    """
    totals: dict[str, dict[str, int]] = {"encoder": {}, "decoder": {}, "token embedding": {}}
    for name, size in sizes.items():
        part = next(label for prefix, label in _PARTS.items() if name.startswith(prefix))
        path = matrix_of(name)
        grouping = quantization.of(path) if quantization and f"{path}.scales" in sizes else None
        precision = dtype if grouping is None else str(grouping)
        totals[part][precision] = totals[part].get(precision, 0) + size
    return {
        part: ", ".join(
            f"{size / 1e6:.1f} MB in {precision}" if size >= 1e5 else f"{size} bytes in {precision}"
            for precision, size in sorted(by_precision.items(), key=lambda item: -item[1])
        )
        for part, by_precision in totals.items()
    }


def _grouping(cls: Any, raw: Any, what: str, **more: Any) -> Any:
    if not isinstance(raw, dict):
        raise ValueError(f"config: bad value for {what}: {quoted(raw)}")
    known = {"bits", "group_size"}
    missing, unknown = sorted(known - raw.keys()), sorted(map(str, raw.keys() - known))
    if missing or unknown:
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"unknown {', '.join(map(quoted, unknown[:5]))}"] if unknown else []
        raise ValueError(f"config.{what}: {'; '.join(parts)}")
    return cls(**raw, **more)
