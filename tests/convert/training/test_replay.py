"""Another language in every batch: which windows, with which tokens, and what it keeps."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from baldwhisper_convert.data.batches import IGNORED, collate, epochs, per_epoch
from baldwhisper_convert.data.features import log_mel
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.replay import Replay
from baldwhisper_convert.data.spec_augment import SpecAugment
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training import loop
from baldwhisper_convert.training.checks import check_batches
from baldwhisper_convert.training.loop import train
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Transcription
from baldwhisper_convert.training.replay import FullContext, WithReplay, followed_by_silence
from baldwhisper_convert.training.settings import TrainingSettings
from tests.support.tiny_prepared import (
    GROUPS,
    teacher_checkpoint,
    tiny_prepared,
    tiny_prompts,
    tiny_student,
    tiny_teacher,
)
from tests.support.tiny_runs import PLAIN, lean, losses, same

SAME = ((0,), (1,), (2,))
"""Groups of a model that is fine-tuned: each layer is the teacher's."""


@pytest.fixture(autouse=True)
def _lean(monkeypatch: pytest.MonkeyPatch) -> None:
    lean(monkeypatch.setattr)


@pytest.fixture
def main(tmp_path: Path) -> Prepared:
    return tiny_prepared(tmp_path / "main", 12, mel=True)


@pytest.fixture
def other(tmp_path: Path) -> Prepared:
    return french(tiny_prepared(tmp_path / "other", 7, mel=True, seed=1))


def french(prepared: Prepared) -> Prepared:
    prepared.settings["report"]["settings"]["language"] = "fr"
    return prepared


def test_every_batch_has_its_share_and_a_resume_finds_the_same(
    main: Prepared, other: Prepared
) -> None:
    mixed = Replay(main, other, 0.25)
    batches = list(islice(epochs(mixed, 4, seed=5), 20))
    for _, batch in batches:
        assert [mixed.is_replayed(i) for i in batch] == [False, False, False, True]
    assert per_epoch(mixed, 4) == 4
    assert [epoch for epoch, _ in batches] == [i // 4 for i in range(20)]
    for start in (1, 4, 7, 15):
        assert list(islice(epochs(mixed, 4, seed=5, start=start), 5)) == batches[start : start + 5]
    spoken = {i for _, batch in batches[:4] for i in batch if not mixed.is_replayed(i)}
    assert spoken == set(range(12))
    replayed = [batch[-1] for _, batch in batches[:14]]
    assert sorted(replayed[:7]) == sorted(replayed[7:]) == list(range(12, 19))


def test_what_is_trained_on_does_not_depend_on_what_is_replayed(
    main: Prepared, other: Prepared
) -> None:
    with_replay = [batch[:3] for _, batch in islice(epochs(Replay(main, other, 0.25), 4, 0), 8)]
    assert with_replay == [batch for _, batch in islice(epochs(main, 3, 0), 8)]


def test_tokens_are_of_the_windows_own_language(main: Prepared, other: Prepared) -> None:
    prompts = tiny_prompts()
    french, english = (prompts.tokenizer.languages[code] for code in ("fr", "en"))
    batch = collate(Replay(main, other, 0.5), [0, 13, 1, 14], prompts, label_silence=True)
    assert batch.replayed is not None
    assert batch.replayed.tolist() == [False, True, False, True]
    for row, again in zip(batch.tokens, batch.replayed, strict=True):
        assert (french in row) == bool(again)
        assert (english in row) == (not again)
    assert (batch.targets[batch.replayed] == IGNORED).all()
    assert (batch.targets[~batch.replayed] != IGNORED).any(1).all()
    assert batch.mask.any(1).all()
    part = batch.rows(batch.replayed)
    alone = collate(other, [1, 2], dataclasses.replace(prompts, language="fr"))
    assert part.lengths.tolist() == alone.lengths.tolist()


def test_the_terms_are_those_of_the_parts(main: Prepared, other: Prepared) -> None:
    teacher, student = tiny_teacher(), tiny_student()
    settings = LossSettings(ce=0.2, kl=1.0)
    base = Distillation(tiny_teacher(), GROUPS, settings)
    objective = WithReplay(base, teacher, GROUPS, weight=2.0)
    batch = collate(Replay(main, other, 0.5), [0, 13, 1, 14], tiny_prompts())
    assert batch.replayed is not None
    terms = objective(student, batch)
    plain = base(student, batch.rows(~batch.replayed))
    kept = Distillation(teacher, GROUPS, LossSettings(ce=0, kl=1.0))(
        student, batch.rows(batch.replayed)
    )
    assert terms.losses.keys() == {"ce", "kl", "replay"}
    torch.testing.assert_close(terms.losses["kl"], plain.losses["kl"])
    torch.testing.assert_close(terms.losses["replay"], 2 * kept.losses["kl"])
    assert terms.positions == plain.positions + kept.positions == int(batch.mask.sum())
    evaluated = objective(student, collate(main, [0, 1], tiny_prompts()))
    assert "replay" not in evaluated.losses


def test_a_part_of_a_batch_is_padded_to_its_own_longest(main: Prepared, other: Prepared) -> None:
    mixed = Replay(main, other, 0.5)
    lengths = [window.positions for window in mixed.windows]
    short, long = (
        min(range(12), key=lengths.__getitem__),
        max(range(12, 19), key=lambda i: lengths[i]),
    )
    assert lengths[short] < lengths[long]
    batch = collate(mixed, [short, long], tiny_prompts())
    assert batch.replayed is not None
    part, alone = batch.rows(~batch.replayed), collate(main, [short], tiny_prompts())
    for name in ("features", "lengths", "tokens", "targets", "mask"):
        assert torch.equal(getattr(part, name), getattr(alone, name)), name


def test_what_is_replayed_is_not_masked(main: Prepared, other: Prepared) -> None:
    masks = SpecAugment(frequency_masks=4, frequency_share=0.5)
    batch = collate(Replay(main, other, 0.5), [0, 13], tiny_prompts(), masks=masks)
    for row, (data, number) in zip(batch.features, ((main, 0), (other, 1)), strict=True):
        features = data.features(number)
        assert torch.equal(row[:, : features.shape[1]], features) == (data is other)


def test_silence_follows_a_clip_as_in_the_log_mel_of_30_s() -> None:
    rng = np.random.default_rng(0)
    samples = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (16000, 24000)]
    samples.append(np.zeros(8000, np.float32))
    extractor = WhisperFeatureExtractor(feature_size=80)
    expected = log_mel(samples, extractor, silence=True)
    found = followed_by_silence(log_mel(samples, extractor)[:, :, :400], 3000)
    for row, wanted, n in zip(found, expected, (100, 150, 50), strict=True):
        # The frames at the end of the audio have some of it, and are cut off with the silence.
        torch.testing.assert_close(row[:, :n], wanted[:, :n])
        torch.testing.assert_close(row[:, n + 2 :], wanted[:, n + 2 :])


def test_a_teacher_of_30_s_predicts_from_30_s(
    tmp_path: Path, main: Prepared, other: Prepared
) -> None:
    """The student sees the clips alone; the teacher what it was trained on."""
    teacher, student = tiny_teacher(), tiny_student()
    settings = LossSettings(ce=0, kl=1.0)
    batch = collate(other, [0, 1, 2], tiny_prompts())
    found = FullContext(teacher, GROUPS, settings)(student, batch)
    frames = 2 * teacher.dims.n_audio_ctx
    with torch.no_grad():
        states = teacher.encoder(followed_by_silence(batch.features, frames))
        logits = teacher.decoder.token_embedding.as_linear(
            teacher.decoder(batch.tokens, teacher.decoder.project_audio(states), None).state
        )
        own, mask = batch.encode(student)
        kv = student.decoder.project_audio(own)
        output = student.decoder(batch.tokens, kv, mask).state
        other_logits = student.decoder.token_embedding.as_linear(output)
    taught, log = logits.log_softmax(-1), other_logits.log_softmax(-1)
    kl = (taught.exp() * (taught - log)).sum(-1)[batch.mask].sum()
    torch.testing.assert_close(found.losses["kl"].detach(), kl, rtol=1e-4, atol=1e-4)
    cut = Distillation(teacher, GROUPS, settings)(student, batch)
    assert abs(float(cut.losses["kl"].detach()) - float(kl)) > 1e-3 * float(kl)
    kept = WithReplay(Transcription(), teacher, GROUPS, full_context=True)
    mixed = kept(student, collate(Replay(main, other, 0.5), [0, 12, 1, 13], tiny_prompts()))
    assert float(mixed.losses["replay"].detach()) > 0


def finetuned(folder: Path, data: Any, **changes: Any) -> Whisper:
    model = Whisper.from_checkpoint(teacher_checkpoint())
    objective: torch.nn.Module = Transcription()
    if isinstance(data, Replay):
        objective = WithReplay(objective, tiny_teacher(), SAME)
    settings = TrainingSettings(**(PLAIN | {"freeze": (), "epochs": 8} | changes))
    train(model, objective, data, tiny_prompts(), settings, folder)
    return model


def test_what_is_replayed_again_in_an_epoch_is_drawn_anew(
    tmp_path: Path, main: Prepared, other: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch is one of the speech that is trained on, so the draws must not be by epoch."""
    steps = list[int]()

    def drawn(*arguments: Any, **options: Any) -> Any:
        steps.append(options["step"])
        return collate(*arguments, **options)

    monkeypatch.setattr(loop, "collate", drawn)
    finetuned(tmp_path / "run", Replay(main, other, 0.5), epochs=1)
    assert steps == [0, 1, 2, 3, 4, 5]


def distance(model: Whisper, other: Prepared) -> float:
    """KL of the original to a model on speech of the other language, per position."""
    objective = Distillation(tiny_teacher(), SAME, LossSettings(ce=0, kl=1.0))
    french = dataclasses.replace(tiny_prompts(), language="fr")
    with torch.no_grad():
        terms = objective(model, collate(other, range(7), french))
    return float(terms.losses["kl"]) / terms.positions


def test_fine_tuning_with_replay_keeps_the_other_language(
    tmp_path: Path, main: Prepared, other: Prepared
) -> None:
    forgets = finetuned(tmp_path / "without", main)
    keeps = finetuned(tmp_path / "with", Replay(main, other, 0.5))
    assert distance(keeps, other) < 0.5 * distance(forgets, other)
    rows = losses(tmp_path / "with")
    assert rows[-1]["ce"] < rows[0]["ce"]
    # A share of the replayed positions, and at first both are the same model.
    assert rows[0]["replay_agreement"] == pytest.approx(1.0)


def test_an_interrupted_run_with_replay_ends_with_the_same_weights(
    tmp_path: Path, main: Prepared, other: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = Replay(main, other, 0.5)
    whole = finetuned(tmp_path / "whole", mixed, epochs=1.5)
    real, taken = loop._Run._step, 0

    def interrupted(self: Any, *arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 6:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(loop._Run, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetuned(tmp_path / "cut", mixed, epochs=1.5, checkpoint_minutes=1e-9)
    resumed = finetuned(tmp_path / "cut", mixed, epochs=1.5, checkpoint_minutes=1e-9)
    assert same(whole.state_dict(), resumed.state_dict())


def test_accumulation_splits_both_languages(
    tmp_path: Path, main: Prepared, other: Prepared
) -> None:
    mixed = Replay(main, other, 0.5)
    finetuned(tmp_path / "two", mixed, epochs=1, accumulate=2)
    with pytest.raises(ValueError, match="has 2 replayed windows, and a step is divided into 4"):
        finetuned(tmp_path / "four", mixed, epochs=1, accumulate=4)


def test_what_cannot_be_mixed_is_refused(tmp_path: Path, main: Prepared, other: Prepared) -> None:
    states = tiny_prepared(tmp_path / "states", 4)
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="share must be above 0 and below 1"):
            Replay(main, other, share)
    with pytest.raises(ValueError, match="replay needs log-mel"):
        Replay(states, other, 0.5)
    with pytest.raises(ValueError, match=r"a share of 0\.1 of a batch of 4 is 0 windows"):
        Replay(main, other, 0.1).rows(4)
    with pytest.raises(ValueError, match="7 windows are fewer than the 8 of a batch"):
        check_batches(Replay(main, other, 0.5), TrainingSettings(batch_size=16), 1)
    # Of a stream only the beginning is known.
    check_batches(Replay(main, other, 0.5), TrainingSettings(batch_size=16), 1, whole=False)
    mute = tiny_prepared(tmp_path / "mute", 4, mel=True, text=False)
    with pytest.raises(ValueError, match="replay needs text"):
        Replay(main, mute, 0.5)
