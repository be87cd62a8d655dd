"""How speech is prepared, and the key of prepared data, which depends on it.

The key tells whether a folder holds what would be made now.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.data.augment import Augmentation
from baldwhisper_convert.data.prepared import STATES
from baldwhisper_convert.data.recordings import noise_fingerprint
from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_convert.data.windows import WindowSettings

Labels = Literal["text", "teacher", "none"]
Features = Literal["states", "mel"]
Context = Literal["full", "dynamic"]
LanguageTokens = Literal["window", "turns"]


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How speech is prepared.

    Raises:
        ValueError: a value out of range.
    """

    labels: Labels = "text"
    """The transcripts, the teacher's own output (sequence-level distillation), or none, for what
    is learned from the audio alone."""
    features: Features = "states"
    """Encoder states, for a frozen encoder, or log-mel, for one that is trained."""
    audio_context: Context = "full"
    """`full`: the encoder receives 30 s; its output after a clip may be cut off. Log-mel is cut
    off too, before the encoder; `windows.full = 1` keeps all of it. `dynamic`: it receives the
    clip's own frames and `windows.margin`, rounded up as in the runtime. A model trained on that
    has a dynamic audio context, see `ModelConfig.audio_context`."""
    max_wer: float = 0.3
    """Windows are left out if the word error rate of the teacher's label is higher than this."""
    passes: int = 1
    """Passes over the speech, each with its own windows; the second and later are augmented."""
    language: str = "en"
    """Language of the speech, code or English name."""
    language_tokens: LanguageTokens = "window"
    """Where labels have language tokens: `window`: at their start only. `turns`: wherever the
    language changes too; the data must have a column `turns`."""
    seed: int = 0
    """Of the order of the clips and of the augmentation."""
    windows: WindowSettings = field(default_factory=WindowSettings)
    """How clips become windows, see below."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How the audio is changed, see below."""

    def __post_init__(self) -> None:
        if self.labels not in get_args(Labels):
            raise ValueError(f"labels must be text, teacher or none, not {self.labels!r}")
        if self.features not in get_args(Features):
            raise ValueError(f"features must be states or mel, not {self.features!r}")
        if self.language_tokens not in get_args(LanguageTokens):
            raise ValueError(
                f"language_tokens must be window or turns, not {self.language_tokens!r}"
            )
        if self.language_tokens == "turns" and self.labels != "text":
            raise ValueError('language_tokens = "turns" needs labels = "text"')
        if self.audio_context not in get_args(Context):
            raise ValueError(f"audio_context must be full or dynamic, not {self.audio_context!r}")
        if self.audio_context == "dynamic" and self.windows.full:
            raise ValueError("a dynamic audio context has no full windows; set windows.full to 0")
        if self.passes < 1 or self.max_wer < 0:
            raise ValueError("passes must be at least 1 and max_wer not negative")

    @property
    def pass_seeds(self) -> list[int]:
        """Of the windows of each pass."""
        # The teacher labels the first pass only, so later passes need the same windows.
        step = 1 if self.labels == "text" else 0
        return [self.seed + step * number for number in range(self.passes)]

    @property
    def by_turns(self) -> bool:
        """Whether labels have a language token wherever the language changes."""
        return self.language_tokens == "turns"

    @property
    def by_teacher(self) -> bool:
        """Whether the data depends on the teacher, which makes its states or its labels."""
        return self.features == STATES or self.labels == "teacher"

    def text_from(self, column: str) -> str | None:
        """The column to read as text: `column`, or None if no text is needed.

        Args:
            column: its name; empty for speech without text, which the teacher can label.

        Raises:
            ValueError: no column, but the labels are the transcripts.
        """
        if not column and self.labels == "text":
            raise ValueError('without a text column, set labels to "teacher" or "none"')
        return None if self.labels == "none" else column or None


def prepared_key(
    checkpoint: Checkpoint, utterances: Sequence[Utterance], settings: PrepareSettings
) -> str:
    """Hash of everything the prepared data depends on, 16 hexadecimal digits."""
    digest = hashlib.sha256(b"log-mel 3")
    if settings.audio_context == "dynamic" and settings.windows.silence:
        digest.update(b"silence of any length")
    if settings.by_teacher:
        digest.update(fingerprint(checkpoint).encode())
    if settings.labels == "teacher" and checkpoint.suppress_tokens is not None:
        digest.update(f"suppress {checkpoint.suppress_tokens}".encode())
    if not all(utterance.group for utterance in utterances):
        digest.update(b"no speaker, no joining")  # such utterances were joined once
    plain = dataclasses.asdict(settings)
    # What is recorded counts, not where; without recordings the key has never had them.
    del plain["augmentation"]["recordings"]
    if not settings.by_turns:
        del plain["language_tokens"]
    digest.update(json.dumps(plain, sort_keys=True).encode())
    digest.update(noise_fingerprint(settings.augmentation.recordings))
    for utterance in utterances:
        digest.update(f"{Path(utterance.name).name}\n{utterance.text}\n".encode())
        if settings.by_turns:
            digest.update(repr(utterance.turns).encode())
    return digest.hexdigest()[:16]
