"""Writes a recipe for a teacher, a language and some hours of speech.

The stages and settings are those of recipes/mboshi-kept.toml, which had the smallest errors on 4 h
of a language that the teacher does not know: fine-tuning, layers that are kept, factors that start
from the data, and KL to the teacher in both trainings. Layers follow the teacher's depth, the rank
its width, and the passes over the speech the hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.layers import evenly_spaced
from baldwhisper_convert.model.prompts import Prompts

SHORT = 15.0
"""Clips that are shorter on average, in seconds, get a dynamic audio context."""

_BEST_OF_SIX = [0, 3, 5]
"""The layers kept of six that had the smallest errors (docs/log.md)."""

_WINDOWS = """[data.{name}.windows]
single = {single}
silence = 0.0
pause = {pause}
full = 0.0
"""


@dataclass(frozen=True)
class _Numbers:
    """What depends on the teacher and on the hours."""

    finetune: int
    """Passes over the speech."""
    copies: int
    """`passes` of the speech for distillation: once unchanged, then augmented."""
    distill: int
    """Passes over all copies."""
    recover: int
    """The same of the second distillation."""
    batch: int
    every: int
    """Steps between evaluations of the fine-tuning."""
    rank: int
    keep: list[int]


def new_recipe(
    teacher: Checkpoint,
    name: str,
    language: str,
    hours: float,
    *,
    clip_seconds: float = 5.0,
    train: str = "data/train",
    dev: str = "data/dev",
) -> str:
    """The text of a commented recipe.

    Args:
        teacher: the model to compress.
        name: its path or hub id, for the recipe.
        language: code or English name; the teacher must have a token for it.
        hours: of transcribed speech to train on.
        clip_seconds: mean length of the clips.
        train: source of the speech to train on.
        dev: source of the speech that chooses the weights.

    Raises:
        ValueError: the teacher has no such language, or no hours.
    """
    if not 0 < hours < math.inf or not 0 < clip_seconds <= 30:
        raise ValueError(
            f"{hours:g} hours of clips of {clip_seconds:g} s: give hours above 0, and clips of at "
            "most 30 s"
        )
    code = Prompts.of(teacher, language).language
    numbers = _numbers(teacher, hours, clip_seconds)
    dynamic = clip_seconds < SHORT
    parts = [
        _HEAD.format(
            teacher=_quoted(name), language=code, hours=f"{hours:g}",
            context=_DYNAMIC if dynamic else _FULL, seconds=f"{clip_seconds:g}",
        ),
        _data("train", train, code, dynamic, mel=True),
        _data("dev", dev, code, dynamic, mel=True),
        _data("states", train, code, dynamic, copies=numbers.copies),
        _data("dev_states", dev, code, dynamic),
        _FINETUNE.format(**vars(numbers)),
        _MERGE.format(
            keep=numbers.keep, kept=len(numbers.keep), layers=teacher.dims.n_text_layer
        )
        if len(numbers.keep) < teacher.dims.n_text_layer
        else "",
    ]  # fmt: skip
    distilled = bool(parts[-1])
    if distilled:
        parts.append(_DISTILL.format(epochs=numbers.distill, batch=numbers.batch, rate="3e-4"))
    parts.append(_FACTORIZE.format(rank=numbers.rank, width=teacher.dims.n_text_state))
    recover = numbers.recover if distilled else numbers.distill
    parts.append(_RECOVER.format(epochs=recover, batch=numbers.batch))
    return "\n".join(part for part in parts if part)


def _numbers(teacher: Checkpoint, hours: float, clip_seconds: float) -> _Numbers:
    """Passes by the square root of the hours: 4 for 4 h, as in recipes/mboshi-kept.toml."""
    windows = max(1, round(hours * 3600 / clip_seconds))
    finetune = min(10, max(1, round(4 * math.sqrt(4 / hours))))
    copies = 3 if hours <= 10 else 2 if hours <= 40 else 1
    distill = max(1, round(1.5 * finetune / copies))
    batch = 16 if windows >= 320 else 4
    n_layers, width = teacher.dims.n_text_layer, teacher.dims.n_text_state
    keep = list(range(n_layers))
    if n_layers > 2:
        keep = _BEST_OF_SIX if n_layers == 6 else evenly_spaced(n_layers, -(-n_layers // 2))
    return _Numbers(
        finetune=finetune,
        copies=copies,
        distill=distill,
        recover=max(1, distill // 2),
        batch=batch,
        every=min(500, max(10, windows // batch)),
        rank=min(width, max(8, 8 * round(width * 3 / 16 / 8))),
        keep=keep,
    )


def _data(
    name: str, source: str, language: str, dynamic: bool, *, mel: bool = False, copies: int = 1
) -> str:
    """The sections of one data set."""
    lines = [f"[data.{name}]", f"source = {_quoted(source)}", f'language = "{language}"']
    if mel:
        lines.append('features = "mel"')
    if dynamic:
        lines.append('audio_context = "dynamic"')
    if copies > 1:
        lines.append(f"passes = {copies}")
    # The metrics are of single clips, as users have them.
    joined = not dynamic and not name.startswith("dev")
    windows = _WINDOWS.format(
        name=name, single=0.2 if joined else 1.0, pause=0.6 if joined else 0.0
    )
    text = "\n".join(lines) + "\n" + windows
    if copies > 1:
        text += _AUGMENTATION
    return _DATA_COMMENTS.get(name, "") + text


def _quoted(text: str) -> str:
    """A TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_HEAD = """\
# A smaller Whisper for {language}, from {hours} h of speech in clips of {seconds} s on average.
#
#   baldwhisper-convert run RECIPE --dry-run      checks all of this, and says what it takes
#   baldwhisper-convert run RECIPE --output runs/{language}
#
# --data NAME=FOLDER replaces a source below; train and states are the same speech, and so are dev
# and dev_states. To report errors, use clips that are in neither. docs/training.md explains the
# settings. Before use: baldwhisper-convert export runs/{language}/NN-distill models/{language}

teacher = {teacher}

{context}"""

_DYNAMIC = """\
# The encoder processes a clip's own frames and half a second (audio_context = "dynamic"), not 30 s:
# a fraction of the work for short clips, here and when the model is used.
"""
_FULL = """\
# Clips are joined to windows of up to 30 s, as the encoder receives them in long recordings.
"""

_DATA_COMMENTS = {
    "train": "# To train the whole model on: log-mel, because the encoder is trained too.\n",
    "dev": "# It chooses the weights and stops the training.\n",
    "states": "# The same speech for the stages with a frozen encoder, whose output is stored.\n",
}

_AUGMENTATION = """# The second and later passes are augmented.
[data.states.augmentation]
speed = 0.8
room = 0.2
noise = 0.4
snr = [10.0, 30.0]
"""

_FINETUNE = """# 1. The teacher learns the language.
[[stages]]
stage = "finetune"
data = ["train"]
dev = "dev"
[stages.training]
epochs = {finetune}
batch_size = {batch}
learning_rate = 1e-4
warmup = 0.1
freeze = []
mix = {{ timestamps = 0.5, prompts = 0.0 }}
# "bf16" is faster on GPUs and on CPUs with AMX, and slower on others.
mixed_precision = "no"
# Early stopping: after three evaluations without a better word error rate. The best weights stay.
evaluate_every = {every}
patience = 3
"""

_MERGE = """# {kept} of the {layers} decoder layers are kept.
[[stages]]
stage = "merge"
data = ["states"]
[stages.merge]
method = "keep"
keep = {keep}
"""

_DISTILL = """# They learn to write what the teacher writes.
[[stages]]
stage = "distill"
data = ["states"]
dev = "dev_states"
[stages.loss]
ce = 1.0
kl = 1.0
learn_temperature = true
[stages.training]
epochs = {epochs}
batch_size = {batch}
learning_rate = {rate}
mix = {{ timestamps = 0.5, prompts = 0.0 }}
"""

_FACTORIZE = """# The token embedding as factors of rank {rank}; its width is {width}.
[[stages]]
stage = "factorize"
data = ["states"]
dev = "dev_states"
[stages.factorize]
rank = {rank}
init = "joint"
"""

_RECOVER = "# And what the factors lost is learned again.\n" + _DISTILL.split("\n", 1)[1].replace(
    "{rate}", "1e-4"
)
