"""Greedy decoding in PyTorch, for the teacher's labels and the WER during training.

Batched, with caches, and with the rules of the runtime's decoder (OpenAI's): no non-speech
tokens, no blank start, timestamps in pairs that do not decrease. Parity tests compare it with the
runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from baldwhisper_convert.model.layers import SelfCache
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.config import TIME_PRECISION

MAX_INITIAL_TIMESTAMP = 1.0
"""Seconds; the first timestamp may not be later (OpenAI's default)."""


@torch.no_grad()
def decode_greedy(
    model: Whisper,
    audio: Tensor,
    mask: Tensor | None,
    prompts: Prompts,
    *,
    timestamps: bool,
    max_tokens: int | None = None,
) -> list[list[int]]:
    """Decodes a batch.

    Args:
        model: in evaluation mode.
        audio: encoder states (B, T, d).
        mask: encoder positions that are not padding, from `length_mask`.
        prompts: special tokens and the language.
        timestamps: whether to decode with timestamp tokens.
        max_tokens: per window; by default half the text context, as OpenAI's.

    Returns:
        B lists of tokens, without the prompt and the end.
    """
    decoder = model.decoder
    batch = audio.shape[0]
    kv = decoder.project_audio(audio)
    cache = [SelfCache() for _ in decoder.blocks]
    rules = Rules(prompts, model.dims.n_vocab, timestamps, audio.device)
    step = torch.tensor([prompts.sot_sequence(timestamps=timestamps)] * batch, device=audio.device)
    sampled = torch.empty(batch, 0, dtype=torch.long, device=audio.device)
    ended = torch.zeros(batch, dtype=torch.bool, device=audio.device)
    numbers = torch.arange(batch, device=audio.device)
    rows: list[list[int]] = [[] for _ in range(batch)]
    limit = max_tokens or model.dims.n_text_ctx // 2
    # The last token is not fed back, so one more than the context fits.
    for _ in range(min(limit, model.dims.n_text_ctx + 1 - step.shape[1])):
        output = decoder(step, kv, mask, cache)
        logits = decoder.token_embedding.as_linear(output.state[:, -1])
        chosen = rules.apply(logits, sampled).argmax(-1)
        chosen = torch.where(ended, prompts.end, chosen)
        sampled = torch.cat([sampled, chosen[:, None]], dim=1)
        ended |= chosen == prompts.end
        left = int((~ended).sum())
        if left == 0:
            break
        if 2 * left <= len(ended):  # continue with the unfinished rows only, which is cheaper
            _put(rows, numbers, sampled)
            keep = ~ended
            numbers, sampled, chosen, ended = (x[keep] for x in (numbers, sampled, chosen, ended))
            mask = mask if mask is None else mask[keep]
            kv = {layer: (k[keep], v[keep]) for layer, (k, v) in kv.items()}
            for layer in cache:
                assert layer.kv is not None
                layer.kv = layer.kv[0][keep], layer.kv[1][keep]
        step = chosen[:, None]
    _put(rows, numbers, sampled)
    return [row[: row.index(prompts.end)] if prompts.end in row else row for row in rows]


@torch.no_grad()
def confidence(
    model: Whisper, audio: Tensor, rows: Sequence[Sequence[int]], prompts: Prompts
) -> list[tuple[float, float]]:
    """How sure a model is of what `decode_greedy` decoded without timestamps.

    As openai-whisper's `avg_logprob` and `no_speech_prob`.

    Args:
        model: that decoded the rows.
        audio: encoder states (B, T, d).
        rows: B lists of tokens.
        prompts: special tokens and the language.

    Returns:
        For each row the mean log-probability (nats) of its tokens and the end of text, among the
        tokens that the rules allow; and the probability of no speech, 0 to 1.
    """
    start = prompts.sot_sequence(timestamps=False)
    limit = model.dims.n_text_ctx // 2
    bodies = [[*row, *([prompts.end] if len(row) < limit else [])] for row in rows]
    length = max(map(len, bodies))
    padded = torch.tensor(
        [[*body, *[prompts.end] * (length - len(body))] for body in bodies], device=audio.device
    )
    prompt = torch.tensor([start] * len(rows), device=audio.device)
    states = model.decoder(torch.cat([prompt, padded[:, :-1]], dim=1), audio).state
    rules = Rules(prompts, model.dims.n_vocab, False, audio.device)
    sums = torch.zeros(len(rows), device=audio.device)
    # A position at a time, because logits of all positions may take gigabytes.
    for position in range(length):
        logits = model.decoder.token_embedding.as_linear(states[:, len(start) - 1 + position])
        scores = rules.apply(logits, padded[:, :position]).log_softmax(-1)
        own = scores.gather(1, padded[:, position : position + 1])[:, 0]
        real = torch.tensor([position < len(body) for body in bodies], device=audio.device)
        sums += torch.where(real, own, 0.0)
    at_start = model.decoder.token_embedding.as_linear(states[:, 0]).softmax(-1)
    silence = at_start[:, prompts.tokenizer.no_speech].cpu()
    return [
        (float(total) / (len(row) + 1), float(silent))
        for total, row, silent in zip(sums.cpu(), rows, silence, strict=True)
    ]


def _put(rows: list[list[int]], numbers: Tensor, sampled: Tensor) -> None:
    """Copies the tokens of the rows left in the batch to their original places."""
    for number, row in zip(numbers.tolist(), sampled.tolist(), strict=True):
        rows[number] = row


class Rules:
    """Masks tokens that must not come next; openai-whisper's logit filters for greedy decoding."""

    def __init__(
        self, prompts: Prompts, n_vocab: int, timestamps: bool, device: torch.device
    ) -> None:
        tokenizer = prompts.tokenizer
        self.timestamps = timestamps
        self.begin, self.end = tokenizer.timestamp_begin, tokenizer.eot
        self.ids = torch.arange(n_vocab, device=device)
        self.never = torch.zeros(n_vocab, dtype=torch.bool, device=device)
        self.never[list(tokenizer.suppressed_tokens)] = True
        if timestamps:
            self.never[tokenizer.no_timestamps] = True
        self.not_first = torch.zeros_like(self.never)
        self.not_first[list(tokenizer.blank_tokens)] = True
        if timestamps:
            latest = self.begin + round(MAX_INITIAL_TIMESTAMP / TIME_PRECISION)
            self.not_first |= (self.ids < self.begin) | (self.ids > latest)

    def apply(self, logits: Tensor, sampled: Tensor) -> Tensor:
        """Sets logits (B, V) of tokens that must not follow `sampled` (B, L) to minus infinity."""
        banned = self.never.expand_as(logits)
        if sampled.shape[1] == 0:
            banned = banned | self.not_first
        elif self.timestamps:
            banned = banned | self._pairs(sampled)
        logits = logits.masked_fill(banned, -torch.inf)
        if self.timestamps:
            # A timestamp must follow if all of them together are likelier than any text token.
            scores = logits.log_softmax(-1)
            due = scores[:, self.begin :].logsumexp(-1) > scores[:, : self.begin].amax(-1)
            logits = logits.masked_fill(due[:, None] & (self.ids < self.begin), -torch.inf)
        return logits

    def _pairs(self, sampled: Tensor) -> Tensor:
        """Tokens (B, V) that break the order of timestamps: in pairs, never decreasing."""
        is_time = sampled >= self.begin
        last = is_time[:, -1]
        before = is_time[:, -2] if sampled.shape[1] > 1 else torch.ones_like(last)
        times, text = self.ids >= self.begin, self.ids < self.end
        # After a pair (or the first timestamp) text follows; a single timestamp ends a segment,
        # so the next one starts or the transcript ends.
        banned = (last & before)[:, None] & times
        banned = banned | ((last & ~before)[:, None] & text)
        latest = torch.where(is_time, sampled, 0).amax(1)
        # A segment must end after all earlier times; it may start where the last one ended.
        floor = torch.where(last & ~before, latest, latest + 1)
        return banned | (times & (self.ids < floor[:, None]) & (latest > 0)[:, None])


def text_of(rows: Sequence[Sequence[int]], prompts: Prompts) -> list[str]:
    """The text of decoded rows."""
    return [prompts.tokenizer.decode(list(row)).strip() for row in rows]
