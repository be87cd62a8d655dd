"""The same weights in the format of every program that the benchmark compares.

Each form is made once, in a work folder, from one checkpoint; float16 as published, wherever
the format has it. What the programs compute in is their own setting. A form is made in a process
of its own, so that the one which measures stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from baldwhisper_mlx.bench.processes import isolated
from baldwhisper_mlx.files import atomic_file, atomic_folder
from benchmarks.result_files import check_settings

if TYPE_CHECKING:
    from baldwhisper_convert.checkpoint.checkpoint import Checkpoint


class Forms:
    """The forms of one checkpoint.

    Args:
        checkpoint: in any format that export reads.
        work: folder to keep the forms in; what is there already is not made again.
    """

    def __init__(self, checkpoint: str, work: Path) -> None:
        self.source, self.work = checkpoint, work
        path = Path(checkpoint).expanduser()
        check_settings(work, {"checkpoint": str(path.resolve()) if path.exists() else checkpoint})

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, read when a form first needs it."""
        from baldwhisper_convert.readers.read import read_checkpoint

        return read_checkpoint(self.source)

    def path(self, form: str) -> Path:
        """Where a form is; made now, by another process, if it is not there yet.

        Args:
            form: one of `FORMS`.

        Raises:
            RuntimeError: it cannot be made; the message says why.
        """
        found = self.work / form
        if not found.exists():
            isolated(make_form, self.source, form, self.work)
        return found

    def make(self, form: str) -> None:
        """Makes a form, and those it is made from, in this process."""
        self.work.mkdir(parents=True, exist_ok=True)
        found = self.work / form
        if not found.exists():
            _MAKERS[form](self, found)


def _mlx(forms: Forms, path: Path) -> None:
    from baldwhisper_convert.export.mlx import export_mlx

    export_mlx(forms.checkpoint, path, dtype="float16", calibration="bundled")


def _mlx_whisper(forms: Forms, path: Path) -> None:
    from baldwhisper_mlx.checkpoint.mlx_whisper_writer import write_folder

    forms.make("mlx")
    with atomic_folder(path) as temporary:
        write_folder(forms.work / "mlx", temporary)


def _openai(forms: Forms, path: Path) -> None:
    import torch

    checkpoint = forms.checkpoint
    content = {"dims": asdict(checkpoint.dims), "model_state_dict": checkpoint.state}
    with atomic_file(path) as temporary:
        torch.save(content, temporary)


def _hugging_face(forms: Forms, path: Path) -> None:
    from baldwhisper_convert.export.hugging_face import export_hf

    export_hf(forms.checkpoint, path, dtype="float16")


def _ctranslate2(forms: Forms, path: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    forms.make("transformers")
    beside = ["tokenizer.json", "preprocessor_config.json"]
    converter = TransformersConverter(str(forms.work / "transformers"), copy_files=beside)
    with atomic_folder(path) as temporary:
        converter.convert(str(temporary), quantization="float16", force=True)


def _ggml(forms: Forms, path: Path) -> None:
    from benchmarks.peers.ggml import write_ggml

    write_ggml(forms.checkpoint, path)


def _ggml_q8(forms: Forms, path: Path) -> None:
    from benchmarks.peers.ggml import write_ggml

    write_ggml(forms.checkpoint, path, quantized=True)


_MAKERS: dict[str, Callable[[Forms, Path], None]] = {
    "mlx": _mlx,
    "mlx-whisper": _mlx_whisper,
    "openai.pt": _openai,
    "transformers": _hugging_face,
    "ctranslate2": _ctranslate2,
    "ggml.bin": _ggml,
    "ggml-q8_0.bin": _ggml_q8,
}
FORMS = tuple(_MAKERS)


def model_bytes(path: Path) -> int:
    """Size of a model file, or of all files in a model folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def make_form(source: str, form: str, work: Path) -> None:
    """Makes a form of the checkpoint `source` in the folder `work`."""
    Forms(source, work).make(form)
