"""The tied token embedding in PyTorch, dense or factorized.

The counterpart of the runtime's `FactorizedEmbedding`; parity tests compare the two.
Dimensions in docstrings: B batch, L tokens, d width, V vocabulary, r rank, K dense rows.

Factorization: Sy et al., arXiv 2510.08599.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baldwhisper_convert.checkpoint.state import EMBEDDING, Dimensions, EmbeddingForm


class TokenEmbedding(nn.Module):
    """The tied embedding in one of the forms of `EmbeddingForm`.

    Dense: E[t] and h @ E^T. Factorized: E1[t] @ E2 + mean and (h @ O^T) @ E1^T + h . mean, with
    O = E2 unless the form has separate projections; K tokens may have dense rows, which replace
    the low-rank values at input and output.
    """

    weight: Tensor
    factors: Tensor
    input_projection: Tensor
    dense_ids: Tensor

    def __init__(self, dims: Dimensions, form: EmbeddingForm) -> None:
        super().__init__()
        self.form = form
        for name, shape in form.shapes(dims).items():
            short = name.removeprefix(f"{EMBEDDING}.")
            if short == "dense_ids":
                self.register_buffer(short, torch.arange(shape[0]))
                row = torch.full((dims.n_vocab,), -1)
                row[: shape[0]] = torch.arange(shape[0])
                self.register_buffer("_row_of_token", row, persistent=False)
            else:
                self.register_parameter(short, nn.Parameter(torch.zeros(shape)))

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.form.dense_rows:
            table = torch.full_like(self.get_buffer("_row_of_token"), -1)
            table[self.dense_ids] = torch.arange(self.form.dense_rows, device=table.device)
            self.register_buffer("_row_of_token", table, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeds token ids (B, L) as (B, L, d)."""
        if self.form.rank is None:
            return F.embedding(tokens, self.weight)
        x = F.embedding(tokens, self.factors) @ self.input_projection
        if self.form.mean:
            x = x + self.get_parameter("mean")
        if self.form.dense_rows:
            row = self.get_buffer("_row_of_token")[tokens]
            dense = F.embedding(row.clamp(min=0), self.get_parameter("dense_rows"))
            x = torch.where(row[..., None] < 0, x, dense)
        return x

    def as_linear(self, state: Tensor) -> Tensor:
        """Logits (..., V) of decoder states (..., d)."""
        if self.form.rank is None:
            return F.linear(state, self.weight)
        separate = self.form.projections == "separate"
        projection = self.get_parameter("output_projection") if separate else self.input_projection
        logits = F.linear(F.linear(state, projection), self.factors)
        # In place, because a copy of all logits takes as long as the product.
        if self.form.mean:
            logits += (state @ self.get_parameter("mean"))[..., None]
        if self.form.dense_rows:
            dense = F.linear(state, self.get_parameter("dense_rows"))
            logits.index_copy_(-1, self.dense_ids, dense)
        return logits
