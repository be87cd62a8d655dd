"""Rules of greedy decoding compared with a naive version; the limits and end of the loop.

Whole outputs are compared with the runtime's in tests/parity/test_training_model_parity.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.model.greedy import Rules, decode_greedy, text_of
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.decoding.options import DecodingOptions, Vocabulary
from tests.support.naive import masked_logits
from tests.support.tiny import tiny_checkpoint
from tests.support.tiny_speech import tiny_prompts, tiny_teacher

PROMPTS = tiny_prompts()
TOKENIZER = PROMPTS.tokenizer
BEGIN = TOKENIZER.timestamp_begin
N_VOCAB = BEGIN + 1501
VOCABULARY = Vocabulary(
    n_vocab=N_VOCAB,
    eot=TOKENIZER.eot,
    sot=TOKENIZER.sot,
    no_speech=TOKENIZER.no_speech,
    no_timestamps=TOKENIZER.no_timestamps,
    timestamp_begin=BEGIN,
    suppress=TOKENIZER.suppressed_tokens,
    suppress_first=TOKENIZER.blank_tokens,
)
RULES = {mode: Rules(PROMPTS, N_VOCAB, mode, torch.device("cpu")) for mode in (False, True)}


def monotonic(tokens: list[int]) -> list[int]:
    """Tokens as decoding gives them: timestamps that do not go back."""
    latest, found = BEGIN, []
    for token in tokens:
        latest = max(latest, token) if token >= BEGIN else latest
        found.append(latest if token >= BEGIN else token)
    return found


tokens = st.integers(0, 400) | st.integers(BEGIN, N_VOCAB - 1)
prefixes = st.integers(0, 6).flatmap(
    lambda length: st.lists(
        st.lists(tokens, min_size=length, max_size=length).map(monotonic), min_size=1, max_size=3
    )
)


@settings(deadline=None, max_examples=150)
@given(prefixes, st.integers(0, 2**32 - 1), st.sampled_from([0.5, 3.0]), st.booleans())
def test_rules(rows: list[list[int]], seed: int, scale: float, timestamps: bool) -> None:
    """The same tokens forbidden, the same one chosen, for each row of a batch."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.standard_normal((len(rows), N_VOCAB))).astype(np.float32)
    sampled = torch.tensor(rows, dtype=torch.long).view(len(rows), -1)
    found = RULES[timestamps].apply(torch.from_numpy(logits), sampled).numpy()
    options = DecodingOptions(timestamps=timestamps)
    for row, out in enumerate(found):
        expected = masked_logits(logits[row], rows[row], VOCABULARY, options)
        np.testing.assert_array_equal(np.isneginf(out), np.isneginf(expected))
        allowed = np.isfinite(expected)
        np.testing.assert_array_equal(out[allowed], logits[row][allowed])


@pytest.fixture(scope="module")
def model() -> Whisper:
    return Whisper.from_checkpoint(tiny_teacher())


def states(batch: int, length: int = 15) -> torch.Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(1))


def biased(towards_end: float) -> Whisper:
    """A model with 40 text positions whose states all point to the end of text, or away."""
    teacher = tiny_teacher()
    dims = replace(teacher.dims, n_text_ctx=40)
    model = Whisper.from_checkpoint(tiny_checkpoint(dims, alignment_heads=None))
    with torch.no_grad():
        model.decoder.ln.bias[0] = 50.0
        model.decoder.token_embedding.weight[:, 0] = 0.0
        model.decoder.token_embedding.weight[PROMPTS.end, 0] = towards_end
    return model


@pytest.mark.parametrize("timestamps", [False, True])
def test_limits(timestamps: bool) -> None:
    endless = biased(-10.0)

    def lengths(limit: int | None) -> list[int]:
        rows = decode_greedy(
            endless, states(2), None, PROMPTS, timestamps=timestamps, max_tokens=limit
        )
        return [len(row) for row in rows]

    assert lengths(5) == [5, 5]
    assert lengths(None) == [20, 20]
    room = 40 + 1 - len(PROMPTS.sot_sequence(timestamps=timestamps))
    assert lengths(10_000) == [room, room]


def test_all_ended_stops_the_loop() -> None:
    rows = decode_greedy(biased(10.0), states(3), None, PROMPTS, timestamps=False)
    assert [len(row) for row in rows] == [1, 1, 1]  # the first may not be the end


@pytest.mark.parametrize(
    ("timestamps", "towards_end", "chosen", "lengths", "left"),
    [(False, 0.02, [3, 4, 1, 6, 0], [1, 19, 1, 1, 20], 2), (True, 0.01, [3, 0, 4], [1, 20, 10], 1)],
)
def test_finished_rows_are_dropped_from_the_batch(
    timestamps: bool, towards_end: float, chosen: list[int], lengths: list[int], left: int
) -> None:
    """And the others are decoded as they are alone, over their own audio."""
    model, audio = biased(towards_end), 3 * states(8)[chosen]
    mask = torch.ones(len(chosen), 1, 1, 15, dtype=torch.bool)
    sizes: list[int] = []
    hook = model.decoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    rows = decode_greedy(model, audio, mask, PROMPTS, timestamps=timestamps)
    hook.remove()
    assert [len(row) for row in rows] == lengths
    assert (sizes[0], sizes[-1]) == (len(chosen), left)
    for number, row in enumerate(rows):
        own = audio[number : number + 1]
        assert decode_greedy(model, own, None, PROMPTS, timestamps=timestamps) == [row]


@pytest.mark.parametrize("timestamps", [False, True])
def test_masked_audio_changes_nothing(model: Whisper, timestamps: bool) -> None:
    audio = states(2)
    alone = decode_greedy(model, audio[1:, :9], None, PROMPTS, timestamps=timestamps, max_tokens=30)
    audio[1, 9:] = 100.0
    mask = (torch.arange(15) < torch.tensor([[15], [9]]))[:, None, None]
    together = decode_greedy(model, audio, mask, PROMPTS, timestamps=timestamps, max_tokens=30)
    assert together[1] == alone[0]


def test_text() -> None:
    rows = [[BEGIN, *TOKENIZER.encode(" a fox"), BEGIN + 5], []]
    assert text_of(rows, PROMPTS) == ["a fox", ""]
