"""Batches of prepared windows, for training, evaluation and calibration.

Each time a window is used, its token sequence is drawn anew: with or without timestamps, with or
without the previous text as a prompt. The draw depends on the seed, the step and the window only,
so it is the same with any number of processes and after a resume.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baldwhisper_convert.data.prepared import SILENCE, PreparedWindow, Windows
from baldwhisper_convert.data.ranges import check_range
from baldwhisper_convert.data.replay import Replay
from baldwhisper_convert.data.spec_augment import SpecAugment, check_masks, spec_augment
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper, length_mask

IGNORED = -100
"""Target of positions without a label; torch's default `ignore_index`."""

_REPLAY_SEED = 7919
_BUCKET = 16
"""Number of batches within which windows are sorted by length."""


@dataclass(frozen=True)
class Batch:
    """B windows, padded. T encoder positions, L tokens."""

    features: Tensor
    """Encoder states (B, T, d), or log-mel (B, n_mels, 2T) that the encoder must still process."""
    is_mel: bool
    lengths: Tensor
    """Encoder positions of each window without padding (B,)."""
    tokens: Tensor
    """Decoder input (B, L)."""
    targets: Tensor
    """Token to predict at each position (B, L); `IGNORED` at positions without a label."""
    mask: Tensor
    """Positions at which student and teacher are compared (B, L), bool."""
    replayed: Tensor | None = None
    """Windows of another language, see `Replay` (B,), bool; None without replay."""

    def to(self, device: torch.device) -> Batch:
        """Copies the batch to a device."""
        moved = (self.lengths, self.tokens, self.targets, self.mask)
        lengths, tokens, targets, mask = (t.to(device) for t in moved)
        replayed = None if self.replayed is None else self.replayed.to(device)
        features = self.features.to(device)
        return Batch(features, self.is_mel, lengths, tokens, targets, mask, replayed)

    def rows(self, chosen: Tensor) -> Batch:
        """The windows of the batch that are chosen (B,), bool, padded to the longest of them."""
        lengths, mask = self.lengths[chosen], self.mask[chosen]
        positions, length = int(lengths.max()), int(mask.any(0).nonzero().max()) + 1
        features = self.features[chosen]
        features = features[:, :, : 2 * positions] if self.is_mel else features[:, :positions]
        tokens, targets = self.tokens[chosen][:, :length], self.targets[chosen][:, :length]
        return Batch(features, self.is_mel, lengths, tokens, targets, mask[:, :length])

    @property
    def audio_positions(self) -> int:
        """Encoder positions of all windows, without padding."""
        return int(self.lengths.sum())

    def audio_valid(self) -> Tensor:
        """Whether an encoder position is not padding (B, T), bool."""
        longest = self.features.shape[2] // 2 if self.is_mel else self.features.shape[1]
        return torch.arange(longest, device=self.lengths.device) < self.lengths[:, None]

    def audio_mask(self) -> Tensor | None:
        """Mask of the encoder positions that are not padding, from `length_mask`."""
        longest = self.features.shape[2] // 2 if self.is_mel else self.features.shape[1]
        return length_mask(self.lengths, longest)

    def encode(self, model: Whisper) -> tuple[Tensor, Tensor | None]:
        """Encoder states (B, T, d) and their mask, running the model's encoder if needed."""
        mask = self.audio_mask()
        return (model.encoder(self.features, mask) if self.is_mel else self.features), mask


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Probabilities of the forms in which a window's tokens are drawn.

    Raises:
        ValueError: a probability outside 0 to 1.
    """

    timestamps: float = 0.5
    """Share of the windows whose tokens have timestamps."""
    prompts: float = 0.2
    """Share of windows, among those that continue another, whose prompt is its text."""

    def __post_init__(self) -> None:
        check_range(self, ("timestamps", "prompts"), 0, 1)


def plan_batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Plans one epoch: every window once, in shuffled batches of windows of similar length.

    Args:
        lengths: of each window, in any unit.
        size: windows per batch; an incomplete batch is left out of this epoch, unless it would
            be the only one.
        seed: together with `epoch` determines the order.
        epoch: number of the pass.

    Example:
        >>> sorted(i for batch in plan_batches([3, 1, 2], 2, 0, 0) for i in batch)
        [0, 1, 2]
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    # Cut before sorting; after it, the longest windows would be left out every time.
    order = order[: len(order) // size * size or len(order)]
    batches = []
    for start in range(0, len(order), size * _BUCKET):
        near = sorted(order[start : start + size * _BUCKET], key=lambda i: (lengths[i], i))
        batches += [near[i : i + size] for i in range(0, len(near), size)]
    rng.shuffle(batches)
    return batches


def epochs(
    prepared: Windows, size: int, seed: int, *, start: int = 0
) -> Iterator[tuple[int, list[int]]]:
    """Yields (epoch, windows of the batch) endlessly, starting at batch number `start`.

    Raises:
        ValueError: there are no windows.
    """
    if isinstance(prepared, Replay):
        count, first = prepared.rows(size), len(prepared.main.windows)
        # Another seed, or two sets of one size would have the same order.
        other = epochs(prepared.other, count, seed + _REPLAY_SEED, start=start)
        for epoch, batch in epochs(prepared.main, size - count, seed, start=start):
            yield epoch, batch + [first + i for i in next(other)[1]]
    lengths = [window.positions for window in prepared.windows]
    if not lengths:
        raise ValueError("the prepared data has no windows; prepare some speech")
    epoch, skip = divmod(start, per_epoch(prepared, size))
    while True:
        for batch in plan_batches(lengths, size, seed, epoch)[skip:]:
            yield epoch, batch
        epoch, skip = epoch + 1, 0


def per_epoch(prepared: Windows, size: int) -> int:
    """Batches of an epoch, which is one pass over the windows; replayed ones do not count."""
    if isinstance(prepared, Replay):
        return per_epoch(prepared.main, size - prepared.rows(size))
    return max(1, len(prepared.windows) // size)


def collate(
    prepared: Windows,
    windows: Sequence[int],
    prompts: Prompts,
    mix: Mix | None = None,
    *,
    seed: int = 0,
    step: int = 0,
    label_silence: bool = False,
    masks: SpecAugment | None = None,
) -> Batch:
    """Reads windows and collates them into a batch.

    Args:
        prepared: the data.
        windows: numbers of the windows.
        prompts: the vocabulary's special tokens; each window gets the token of its own language.
        mix: how tokens are drawn; the default mix if None.
        seed: together with `step` and a window's number determines its draw.
        step: number of the training step.
        label_silence: whether windows of silence have targets, for training without a teacher:
            <|nospeech|> after <|startoftranscript|>, as in Whisper's training, and then no text.
        masks: what of the log-mel is hidden, drawn anew each time a window is used.

    Raises:
        ValueError: there are masks, but the data is no log-mel.
    """
    replay = prepared if isinstance(prepared, Replay) else None
    replayed = [replay is not None and replay.is_replayed(i) for i in windows]
    known, languages = prepared.windows, prepared.languages
    drawn = [
        draw_tokens(
            known[i], prompts.for_language(languages[i]), mix or Mix(),
            random.Random(f"{seed}/{step}/{i}"), label_silence=label_silence and not again,
        )
        for i, again in zip(windows, replayed, strict=True)
    ]  # fmt: skip
    features = _features(prepared, windows, masks, f"{seed}/{step}", replayed)
    lengths = torch.tensor([known[i].positions for i in windows])
    shape = (len(drawn), max(len(tokens) for tokens, _, _ in drawn) - 1)
    tokens = torch.full(shape, prompts.end)
    targets, mask = torch.full(shape, IGNORED), torch.zeros(shape, dtype=torch.bool)
    for row, (i, (sequence, start, labelled)) in enumerate(zip(windows, drawn, strict=True)):
        length = len(sequence) - 1
        tokens[row, :length] = torch.tensor(sequence[:-1])
        mask[row, start:length] = True
        if labelled and not replayed[row]:  # what is replayed has a teacher
            targets[row, start:length] = torch.tensor(sequence[start + 1 :])
            if known[i].kind == SILENCE:
                targets[row, start] = prompts.tokenizer.no_speech
    padded = _pad(features, prepared.is_mel)
    again = torch.tensor(replayed) if replay else None
    return Batch(padded, prepared.is_mel, lengths, tokens, targets, mask, again)


def _features(
    prepared: Windows,
    windows: Sequence[int],
    masks: SpecAugment | None,
    seed: str,
    replayed: Sequence[bool],
) -> list[Tensor]:
    """Features of windows, parts of which are hidden if there are masks.

    Of replayed windows nothing is hidden, because a teacher predicts from the same features.
    """
    features = [prepared.features(i) for i in windows]
    if not masks:
        return features
    check_masks(masks, is_mel=prepared.is_mel)
    return [
        mel if again else spec_augment(mel, masks, random.Random(f"{seed}/{i}/masks"))
        for i, mel, again in zip(windows, features, replayed, strict=True)
    ]


def draw_tokens(
    window: PreparedWindow,
    prompts: Prompts,
    mix: Mix,
    rng: random.Random,
    *,
    label_silence: bool = False,
) -> tuple[list[int], int, bool]:
    """Draws a window's decoder sequence for one use.

    Args:
        window: the window.
        prompts: the vocabulary's special tokens.
        mix: probabilities of the forms.
        rng: source of the draws.
        label_silence: whether the tokens of silence are labels. Otherwise a student learns the
            teacher's distribution there, not a text. With timestamps, silence then has the first
            one, which the runtime forces.

    Returns:
        The tokens, including prompt and end; the position of <|startoftranscript|>, from which
        on teacher and student are compared; and whether the tokens are labels.
    """
    timestamps = bool(window.tokens) and rng.random() < mix.timestamps
    with_prompt = bool(window.prompt) and rng.random() < mix.prompts
    silent = window.kind == SILENCE
    if silent:
        timestamps = rng.random() < mix.timestamps
    text = prompts.with_timestamps(window.tokens, timestamps)
    if silent and timestamps and label_silence:
        text = [prompts.timestamp(0)]
    sequence, start = prompts.sequence(
        text, timestamps=timestamps, previous=window.prompt if with_prompt else ()
    )
    return sequence, start, label_silence or not silent


def _pad(features: Sequence[Tensor], is_mel: bool) -> Tensor:
    """Stacks features (T, d), or (n_mels, 2T), padded with zeros to the longest."""
    time = 1 if is_mel else 0
    longest = max(item.shape[time] for item in features)
    shape = list(features[0].shape)
    shape[time] = longest
    stacked = torch.zeros(len(features), *shape)
    for row, item in zip(stacked, features, strict=True):
        row.narrow(time, 0, item.shape[time]).copy_(item)
    return stacked
