"""Writes a recipe for a teacher, a language and some hours of speech.

The stages and settings are those of recipes/mboshi-augmented.toml, which kept 0.95 of the teacher
on 4 h of a language that it does not know: fine-tuning on speech with augmented copies of it,
layers that are kept, factors that start from the data with whole rows for frequent tokens, and one
distillation. Layers follow the teacher's depth, the rank its width, and the passes over the speech
the hours.
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
full = {full}
"""


@dataclass(frozen=True)
class _Numbers:
    """What depends on the teacher and on the hours."""

    copies: int
    """`passes` of the speech: once unchanged, then augmented."""
    epochs: int
    """Passes over all copies, in both trainings."""
    batch: int
    every: int
    """Steps between evaluations."""
    rank: int
    dense_rows: int
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
    keep: tuple[str, str] | None = None,
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
        keep: another language that the model is not to forget, and the source of speech in it.

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
    layers = teacher.dims.n_text_layer
    kept = Prompts.of(teacher, keep[0]).language if keep else ""
    if kept == code:
        raise ValueError(f"{kept} is the language that the model learns; keep another one")
    states = f'states", "{kept}_states' if kept else "states"
    parts = [
        _HEAD.format(
            teacher=_quoted(name), language=code, hours=f"{hours:g}",
            context=_DYNAMIC if dynamic else _FULL, seconds=f"{clip_seconds:g}",
        ),
        _data("train", train, code, dynamic, mel=True, copies=numbers.copies),
        _data("dev", dev, code, dynamic, mel=True),
        _data("states", train, code, dynamic, copies=numbers.copies),
        _data("dev_states", dev, code, dynamic),
    ]  # fmt: skip
    if keep:
        parts += _replay(kept, keep[1], dynamic, numbers.copies)
    parts.append(_FINETUNE.format(training=_training(numbers, "1e-4", "freeze = []\n", _PRECISION)))
    if len(numbers.keep) < layers:
        parts.append(_MERGE.format(keep=numbers.keep, kept=len(numbers.keep), layers=layers))
    parts += [
        _FACTORIZE.format(width=teacher.dims.n_text_state, data=states, **vars(numbers)),
        _DISTILL.format(training=_training(numbers, "3e-4"), data=states),
    ]
    return "\n".join(parts)


def _numbers(teacher: Checkpoint, hours: float, clip_seconds: float) -> _Numbers:
    """Passes by the square root of the hours: 9 for 4 h, as in recipes/mboshi-augmented.toml."""
    windows = max(1, round(hours * 3600 / clip_seconds))
    copies = 3 if hours <= 10 else 2 if hours <= 40 else 1
    passes = min(12.0, 9 * math.sqrt(4 / hours))
    batch = 16 if windows >= 320 else 4
    n_layers, width = teacher.dims.n_text_layer, teacher.dims.n_text_state
    keep = list(range(n_layers))
    if n_layers > 2:
        keep = _BEST_OF_SIX if n_layers == 6 else evenly_spaced(n_layers, -(-n_layers // 2))
    return _Numbers(
        copies=copies,
        epochs=max(1, round(passes / copies)),
        batch=batch,
        every=min(500, max(10, windows * copies // batch // 2)),
        rank=min(width, max(8, 8 * round(width * 5 / 32 / 8))),
        dense_rows=min(1500, teacher.dims.n_vocab),
        keep=keep,
    )


def _replay(language: str, source: str, dynamic: bool, copies: int) -> list[str]:
    """The sections of another language that the model keeps."""
    return [
        _data(language, source, language, dynamic, mel=True, copies=copies),
        _data(f"{language}_states", source, language, dynamic, copies=copies),
        _REPLAY.format(language=language),
    ]


def _training(numbers: _Numbers, rate: str, more: str = "", precision: str = "") -> str:
    """The section of a training, with lines of its own and a comment on the precision."""
    return _TRAINING.format(rate=rate, more=more, precision=precision, **vars(numbers))


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
        if not mel:
            lines.append("seed = 1")
    # The metrics are of single clips, as users have them.
    joined = not dynamic and not name.startswith("dev")
    windows = _WINDOWS.format(
        name=name, single=0.2 if joined else 1.0, pause=0.6 if joined else 0.0,
        # Log-mel is cut before the encoder, which must get 30 s unless its context is dynamic.
        full=1.0 if mel and not dynamic else 0.0,
    )  # fmt: skip
    text = "\n".join(lines) + "\n" + windows
    if copies > 1:
        text += (_AUGMENTATION_COMMENT if mel else "") + _AUGMENTATION.format(name=name)
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
    "dev": "# It chooses the weights; with `patience` it also ends a training early.\n",
    "states": "# The same with other augmentation, for stages that store the encoder's output.\n",
}

_AUGMENTATION_COMMENT = """\
# The second and later passes are augmented. The noise is synthetic; with a line
# recordings = "FOLDER" it is mostly that of the recordings in this folder.
"""
_AUGMENTATION = """\
[data.{name}.augmentation]
speed = 0.8
room = 0.2
noise = 0.4
snr = [10.0, 30.0]
"""

_TRAINING = """[stages.training]
epochs = {epochs}
batch_size = {batch}
learning_rate = {rate}
warmup = 0.05
{more}mix = {{ timestamps = 0.5, prompts = 0.0 }}
{precision}mixed_precision = "no"
evaluate_every = {every}
"""
_PRECISION = '# "bf16" is faster on GPUs and on CPUs with AMX or AVX512_BF16 only.\n'

_FINETUNE = """# The teacher learns the language.
[[stages]]
stage = "finetune"
data = ["train"]
dev = "dev"
{training}\
[stages.training.spec_augment]
time_masks = 2
time_share = 0.1
frequency_masks = 2
frequency_share = 0.2
"""

_REPLAY = """\
# A quarter of every batch of the fine-tuning is {language}, on which the model keeps what the
# teacher predicts. The small model then learns both languages from it. For speech without
# transcripts, add labels = "teacher" and text_column = "" to [data.{language}] and
# [data.{language}_states].
[replay]
data = "{language}"
share = 0.25
stages = ["finetune"]
"""

_MERGE = """# {kept} of the {layers} decoder layers are kept.
[[stages]]
stage = "merge"
data = ["states"]
[stages.merge]
method = "keep"
keep = {keep}
"""

_FACTORIZE = """\
# The token embedding as factors of rank {rank}; its width is {width}. The most frequent tokens of
# the speech keep whole rows.
[[stages]]
stage = "factorize"
data = ["{data}"]
dev = "dev_states"
[stages.factorize]
rank = {rank}
init = "joint"
dense_rows = {dense_rows}
"""

_DISTILL = """# The small model learns to write what the teacher writes.
[[stages]]
stage = "distill"
data = ["{data}"]
dev = "dev_states"
[stages.loss]
ce = 1.0
kl = 1.0
learn_temperature = true
{training}"""
