"""The audio contexts that short_context.py compares, made in memory from one loaded model."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.checkpoint.padding_file import compute_padding, save_padding
from baldwhisper_mlx.checkpoint.padding_reader import read_padding
from baldwhisper_mlx.config import PADDING_FILE
from baldwhisper_mlx.model.calibration import calibrate
from baldwhisper_mlx.model.padding import Padding


@dataclass(frozen=True)
class Variant:
    """An audio context; with a stride, a padded one."""

    name: str
    stride: int | None = None
    """Positions that one constant key stands for."""
    tail: int = 0
    """Constant final states that the decoder attends to."""
    recordings: int = 0
    """That the constants are averaged over; 0 for 30 s of zeros instead."""


FULL = Variant("full")
CUT_OFF = Variant("cut off")
"""The clip's own positions and no constants: what breaks a checkpoint trained on 30 s."""


def all_variants(
    strides: Sequence[int], tails: Sequence[int], recordings: Sequence[int], cut_off: bool = True
) -> list[Variant]:
    """Full context, the clip cut off if wanted, and every combination of the padded context.

    Args:
        strides: positions that one constant key stands for.
        tails: constant final states behind the clip.
        recordings: how many recordings to calibrate on; in the name if there are several numbers.
        cut_off: whether the clip without constants is among them.
    """
    padded = []
    for stride, tail, count in itertools.product(strides, tails, recordings):
        name = f"stride {stride}, tail {tail}"
        if len(recordings) > 1:
            name += f", {count} recordings"
        padded.append(Variant(name, stride, tail, count))
    return [FULL, *([CUT_OFF] if cut_off else []), *padded]


class Contexts:
    """A loaded model whose audio context can be changed from clip to clip.

    Args:
        loaded: a checkpoint of the full audio context; it is changed.
        recordings: speech to calibrate on.

    Raises:
        ValueError: the checkpoint was trained in another context, so nothing would be padded.
    """

    def __init__(self, loaded: LoadedModel, recordings: Sequence[Samples]) -> None:
        if loaded.config.audio_context != "full":
            raise ValueError(
                f"{loaded.path}: trained with the audio context {loaded.config.audio_context!r}; "
                "give a checkpoint of full context"
            )
        self.loaded = loaded
        self._recordings = recordings
        self._paddings: dict[Variant, Padding] = {}

    def use(self, variant: Variant) -> None:
        """Sets the context of later transcriptions."""
        model, config = self.loaded.model, self.loaded.config
        if variant == CUT_OFF:
            config = dataclasses.replace(config, audio_context="dynamic")
        model.config = config
        model.padding = None if variant.stride is None else self._padding(variant)

    def _padding(self, variant: Variant) -> Padding:
        """The constants of a variant; computed once."""
        if variant not in self._paddings:
            assert variant.stride is not None
            model, recordings = self.loaded.model, self._recordings[: variant.recordings]
            strides = {"stride": variant.stride, "tail": variant.tail}
            if recordings:
                exact = compute_padding(model, recordings, **strides)
            else:  # what Whisper gets behind a clip, and no clip before it
                config = self.loaded.config
                zeros = mx.zeros((2 * config.n_audio_ctx, config.n_mels))
                exact = calibrate(model.encoder, [zeros], [0], **strides)
            with tempfile.TemporaryDirectory() as folder:  # as they are stored, in float16
                path = Path(folder, PADDING_FILE)
                save_padding(path, exact, variant.recordings)
                self._paddings[variant] = read_padding(path, model)
        return self._paddings[variant]
