"""A model between two stages, and the stage folder that it is saved in."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.pipeline.manifest import Manifest, teacher_layers, write_manifest
from baldwhisper_convert.pipeline.recipe import StageKind
from baldwhisper_convert.training.sharing import Groups


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model between two stages."""

    checkpoint: Checkpoint
    groups: Groups
    """For each decoder layer, the layers of the uncompressed model it replaces."""
    encoder_groups: Groups
    """The same for each encoder layer."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, folder: Path | None = None) -> Model:
        """A model with the layers that the manifest in its folder says, or else its own.

        Raises:
            ValueError: the manifest is for another number of layers.
        """
        groups = {
            part: teacher_layers(folder, n_layers, part)
            for part, n_layers in (
                ("decoder", checkpoint.dims.n_text_layer),
                ("encoder", checkpoint.dims.n_audio_layer),
            )
        }
        return cls(
            checkpoint=checkpoint, groups=groups["decoder"], encoder_groups=groups["encoder"]
        )


def next_teacher(
    stage: StageKind, result: Checkpoint, teacher: Checkpoint, original: Checkpoint
) -> Checkpoint:
    """The teacher of the stages after one: its result, if it fine-tunes the uncompressed model.

    Args:
        stage: what it does.
        result: its model.
        teacher: its own.
        original: the recipe's.
    """
    return result if stage == "finetune" and result.dims == original.dims else teacher


def save_stage(
    model: Model, folder: Path, manifest: Manifest, reports: Sequence[Path] = ()
) -> Path:
    """Writes a stage folder: the model, then the reports, then the manifest.

    Args:
        model: the stage's result.
        folder: replaced if it is an exported model.
        manifest: versions and layers are filled in.
        reports: files to copy into the folder.

    Returns:
        The folder.
    """
    path = export_mlx(model.checkpoint, folder, dtype="float32", force=True)
    for report in reports:
        if report.is_file():
            shutil.copy2(report, path / report.name)
    complete = dataclasses.replace(
        manifest, teacher_layers=model.groups, teacher_encoder_layers=model.encoder_groups
    )
    write_manifest(path, complete)
    return path
