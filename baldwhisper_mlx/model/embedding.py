"""The factorized token embedding, and matrices that stay quantized while they are used.

Dimensions in docstrings: B batch, L tokens, d width, V vocabulary, r rank, K dense rows.
Factorization: Sy et al., "BaldWhisper", arXiv 2510.08599.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

MATRICES = ("factors", "input_projection", "output_projection", "dense_rows")
"""The matrices of a FactorizedEmbedding that may be quantized."""


class QuantizedMatrix(nn.Module):
    """An n x m matrix in MLX's affine quantization, used without expanding all of it."""

    def __init__(self, rows: int, columns: int, *, bits: int, group_size: int) -> None:
        super().__init__()
        self.bits, self.group_size = bits, group_size
        self.weight = mx.zeros((rows, columns * bits // 32), mx.uint32)
        self.scales = mx.zeros((rows, columns // group_size))
        self.biases = mx.zeros((rows, columns // group_size))

    def rows(self, ids: mx.array) -> mx.array:
        """Rows (..., m) by their numbers (...)."""
        parts = (self.weight[ids], self.scales[ids], self.biases[ids])
        return mx.dequantize(*parts, group_size=self.group_size, bits=self.bits)

    def multiply(self, x: mx.array, *, transpose: bool) -> mx.array:
        """x @ M, or x @ M^T."""
        return mx.quantized_matmul(
            x,
            self.weight,
            self.scales,
            self.biases,
            transpose=transpose,
            group_size=self.group_size,
            bits=self.bits,
        )


class FactorizedEmbedding(nn.Module):
    """A V x d embedding as E1 (V x r) times E2 (r x d), tied at both ends of the decoder.

    Input: E1[t] @ E2 + mean. Output: (h @ O^T) @ E1^T + h . mean, with O = E2 unless the
    output has a projection of its own. K frequent tokens may keep their full row, which
    replaces the low-rank value at their ids on both ends. V x d is never materialized.
    """

    def __init__(
        self,
        n_vocab: int,
        width: int,
        rank: int,
        *,
        separate: bool = False,
        mean: bool = False,
        dense_rows: int = 0,
    ) -> None:
        super().__init__()
        self.n_vocab = n_vocab
        self.factors: mx.array | QuantizedMatrix = mx.zeros((n_vocab, rank))
        self.input_projection: mx.array | QuantizedMatrix = mx.zeros((rank, width))
        if separate:
            self.output_projection: mx.array | QuantizedMatrix = mx.zeros((rank, width))
        if mean:
            self.mean = mx.zeros((width,))
        if dense_rows:
            self.dense_rows: mx.array | QuantizedMatrix = mx.zeros((dense_rows, width))
            self.dense_ids = mx.zeros((dense_rows,), mx.int32)
        self._row_of_token: mx.array | None = None

    def __call__(self, tokens: mx.array) -> mx.array:
        """Embeds token ids (B, L) as (B, L, d)."""
        x = _multiply(_rows(self.factors, tokens), self.input_projection)
        if "mean" in self:
            x = x + self.mean
        if "dense_rows" in self:
            row = self._dense_row(tokens)
            x = mx.where(row[..., None] < 0, x, _rows(self.dense_rows, mx.maximum(row, 0)))
        return x

    def as_linear(self, hidden: mx.array) -> mx.array:
        """Logits (..., V) of decoder states (..., d)."""
        x = hidden.flatten(0, -2)
        projection = self.get("output_projection", self.input_projection)
        logits = _multiply(_multiply(x, projection, transpose=True), self.factors, transpose=True)
        if "mean" in self:
            logits = logits + x @ self.mean[:, None]
        if "dense_rows" in self:
            dense = _multiply(x, self.dense_rows, transpose=True)
            ids = mx.broadcast_to(self.dense_ids, dense.shape)
            logits = mx.put_along_axis(logits, ids, dense, axis=-1)
        return logits.reshape(*hidden.shape[:-1], self.n_vocab)

    def quantize(self, name: str, *, bits: int, group_size: int) -> None:
        """Makes one of `MATRICES` a quantized one of the same shape, its values to be loaded."""
        rows, columns = self[name].shape
        self[name] = QuantizedMatrix(rows, columns, bits=bits, group_size=group_size)

    def _dense_row(self, tokens: mx.array) -> mx.array:
        if self._row_of_token is None:
            table = mx.full((self.n_vocab,), -1, mx.int32)
            table[self.dense_ids] = mx.arange(self.dense_ids.size, dtype=mx.int32)
            mx.eval(table)  # once, so that the next step, or another thread, finds it made
            self._row_of_token = table
        return self._row_of_token[tokens]


def _rows(matrix: mx.array | QuantizedMatrix, ids: mx.array) -> mx.array:
    return matrix.rows(ids) if isinstance(matrix, QuantizedMatrix) else matrix[ids]


def _multiply(
    x: mx.array, matrix: mx.array | QuantizedMatrix, *, transpose: bool = False
) -> mx.array:
    if isinstance(matrix, QuantizedMatrix):
        return matrix.multiply(x, transpose=transpose)
    return x @ (matrix.T if transpose else matrix)
