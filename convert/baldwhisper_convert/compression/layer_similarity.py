"""The similarity of layers, which justifies merging neighbours.

The matrix of Sy et al., arXiv 2510.08599, figure 2: the mean cosine similarity between the outputs
of any two layers, over the positions of some speech.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from baldwhisper_convert.compression.agreement import Reference, run_decoder
from baldwhisper_convert.compression.layers import Part
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.files import atomic_file


@torch.no_grad()
def layer_similarity(model: Whisper, reference: Reference) -> Tensor:
    """Mean cosine similarity of decoder layer outputs (layers, layers) over real positions.

    Args:
        model: in evaluation mode.
        reference: output of the same model, or of one with the same encoder.
    """
    n_layers = len(model.decoder.blocks)
    total = torch.zeros(n_layers, n_layers, dtype=torch.float64)
    for output in reference.outputs:
        layers, mask = run_decoder(model, output).layers, output.batch.mask
        units = torch.stack([F.normalize(layer[mask].double(), dim=-1) for layer in layers])
        total += torch.einsum("ind,jnd->ij", units, units)
    return (total / reference.positions).float()


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_similarity(similarity: Sequence[Sequence[float]], path: Path, part: Part) -> None:
    """Draws the similarity matrix as a PNG; layers are numbered from 0.

    Args:
        similarity: square matrix of cosines.
        path: the file; written completely or not at all.
        part: whose layers.
    """
    # Not pyplot, which keeps every figure in memory and may need a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = len(similarity)
    figure = Figure(figsize=(2 + 0.6 * size, 1.5 + 0.6 * size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(similarity, cmap="viridis", vmax=1.0)
    label = f"{part} layer"
    axes.set(xlabel=label, ylabel=label, title="Cosine of layer outputs")
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    middle = (1.0 + min(map(min, similarity))) / 2
    for i, row in enumerate(similarity):
        for j, value in enumerate(row):
            color = "black" if value > middle else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, shrink=0.8)
    with atomic_file(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
