"""OpenAI's whisper-base itself: `make test-real` fetches it, exports it and runs these.

BALDWHISPER_TEACHER, BALDWHISPER_MODEL and BALDWHISPER_DATA name the CTranslate2 folder, its
export and a folder of speech; see CONTRIBUTING.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

import baldwhisper_mlx
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.model.whisper import FactorizedEmbedding
from tests.support.real_data import named

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "sample.wav"
SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(named("BALDWHISPER_MODEL"), dtype="float32", audio_context="full")


def test_the_weights_are_the_pinned_ones() -> None:
    weights = Path(named("BALDWHISPER_TEACHER"), "model.bin")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == SHA256


def test_the_sample_is_transcribed(loaded: LoadedModel) -> None:
    def words(text: str) -> list[str]:
        return "".join(c if c.isalnum() else " " for c in text.lower()).split()

    transcript = baldwhisper_mlx.transcribe(SAMPLE, loaded)
    assert transcript.language == "en"
    assert words(transcript.text) == words(SAMPLE.with_suffix(".txt").read_text())


def decoder_states(loaded: LoadedModel) -> mx.array:
    """States before the vocabulary product over the sample's own transcript, (n, d)."""
    model, tokenizer = loaded.model, loaded.tokenizer
    mel, cache = LogMelSpectrogram(load_audio(SAMPLE), loaded.config.n_mels), model.make_cache()
    model.encode(mel.window(0)[None], [mel.n_frames], cache)
    prompt = tokenizer.sot_sequence("en", "transcribe", timestamps=False)
    text = tokenizer.encode(" " + SAMPLE.with_suffix(".txt").read_text().strip())
    return model.decoder(mx.array([[*prompt, *text]]), cache)[0]


@pytest.mark.parametrize(("rank", "dense_rows"), [(512, 0), (96, 0), (96, 1000)])
def test_a_factorization_of_the_teacher(loaded: LoadedModel, rank: int, dense_rows: int) -> None:
    """Truncated SVD of its embedding: exact at full rank, the dense product of E1 E2 at any."""
    weight = np.array(loaded.model.decoder.token_embedding.weight)
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    root = np.sqrt(s[:rank])
    factors, projection = u[:, :rank] * root, root[:, None] * v[:rank]
    embedding = FactorizedEmbedding(*weight.shape, rank, dense_rows=dense_rows)
    embedding.factors, embedding.input_projection = mx.array(factors), mx.array(projection)
    expected = factors @ projection
    if dense_rows:
        ids = np.random.default_rng(0).permutation(len(weight))[:dense_rows].astype(np.int32)
        embedding.dense_ids, embedding.dense_rows = mx.array(ids), mx.array(weight[ids])
        expected[ids] = weight[ids]
    if rank == 512:
        np.testing.assert_allclose(expected, weight, atol=1e-4)
    hidden = decoder_states(loaded)
    logits = np.array(embedding.as_linear(hidden))
    np.testing.assert_allclose(logits, np.array(hidden) @ expected.T, atol=2e-3)
    tokens = np.arange(0, len(weight), 7)
    embedded = np.array(embedding(mx.array(tokens[None])))[0]
    np.testing.assert_allclose(embedded, expected[tokens], atol=1e-4)
    teacher = np.array(loaded.model.logits(hidden)).argmax(axis=-1)
    if rank == 512:
        np.testing.assert_array_equal(logits.argmax(axis=-1), teacher)


@pytest.fixture(scope="module")
def openai() -> Any:
    from whisper.model import ModelDimensions, Whisper

    from baldwhisper_convert.readers.read import read_checkpoint

    source = read_checkpoint(named("BALDWHISPER_TEACHER"))
    model = Whisper(ModelDimensions(**vars(source.dims)))
    model.load_state_dict(source.state)
    return model.eval()


def test_logits_against_openai_whisper(loaded: LoadedModel, openai: Any) -> None:
    mel = np.array(LogMelSpectrogram(load_audio(SAMPLE), 80).window(0))
    tokens = [[50258, 50259, 50359, 50363, 440, 1702, 2068]]
    with torch.no_grad():
        expected = openai(torch.from_numpy(mel.T.copy())[None], torch.tensor(tokens)).numpy()
    cache = loaded.model.make_cache()
    loaded.model.encode(mx.array(mel)[None], [3000], cache)
    ours = np.array(loaded.model.logits(loaded.model.decoder(mx.array(tokens), cache)))
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_a_long_recording_against_openai_whisper(loaded: LoadedModel, openai: Any) -> None:
    """Windows, prompts and language detection, with pauses between sentences.

    Greedy only: the fallback to sampling draws from another generator than torch's.
    """
    once = load_audio(SAMPLE)
    samples = np.concatenate([np.pad(once[: 40_000 * n], (0, 9_000 * n)) for n in range(1, 6)] * 2)
    expected = openai.transcribe(samples, fp16=False, temperature=0.0)
    ours = baldwhisper_mlx.transcribe(samples, loaded, temperature=0.0).to_dict()
    assert ours["language"] == expected["language"]
    assert len({segment["seek"] for segment in ours["segments"]}) > 2
    for mine, theirs in zip(ours["segments"], expected["segments"], strict=True):
        assert (mine["seek"], mine["text"], mine["tokens"]) == (
            theirs["seek"],
            theirs["text"],
            theirs["tokens"],
        )
        assert mine["end"] == pytest.approx(theirs["end"], abs=1e-6)


def test_the_same_text_as_openai_whisper_on_a_folder_of_speech(tmp_path: Path) -> None:
    """At least 99 % of the clips, with timestamps and without; takes 15 s a clip on two cores."""
    arguments: dict[str, Any] = {
        "--checkpoint": named("BALDWHISPER_TEACHER"),
        "--model": named("BALDWHISPER_MODEL"),
        "--data": named("BALDWHISPER_DATA"),
        "--out": os.environ.get("BALDWHISPER_AGREEMENT", str(tmp_path / "agreement.jsonl")),
    }
    command = [sys.executable, "-m", "benchmarks.accuracy.agreement"]
    command += [word for pair in arguments.items() for word in pair]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr + run.stdout
    assert all(mode["clips"] > 0 for mode in json.loads(run.stdout).values())


def test_word_times_against_openai_whisper(loaded: LoadedModel, openai: Any) -> None:
    """On real speech, their words at their times: half of them within 80 ms."""
    from whisper.transcribe import transcribe

    from baldwhisper_convert.readers.read import read_checkpoint

    heads = read_checkpoint(named("BALDWHISPER_TEACHER")).alignment_heads
    mask = torch.zeros(6, 8, dtype=torch.bool)
    for layer, head in heads or ():
        mask[layer, head] = True
    openai.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    options: dict[str, Any] = {"language": "en", "temperature": 0.0, "word_timestamps": True}
    folder = Path(named("BALDWHISPER_DATA"))
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    distances = []
    for row in rows[:10]:
        samples = load_audio(folder / row["file_name"])
        theirs = transcribe(openai, samples, fp16=False, **options)
        ours = baldwhisper_mlx.transcribe(samples, loaded, **options)
        expected = [word for segment in theirs["segments"] for word in segment["words"]]
        found = [word for segment in ours.segments for word in segment.words or ()]
        # now and then two words are as likely, and rounding decides
        texts = [word.word for word in found], [word["word"] for word in expected]
        same = SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks()
        pairs = [(block.a + i, block.b + i) for block in same for i in range(block.size)]
        assert len(pairs) > 0.95 * len(expected)
        for mine, other in pairs:
            word, wanted = found[mine], expected[other]
            distances += [abs(word.start - wanted["start"]), abs(word.end - wanted["end"])]
    assert len(distances) > 200
    print(f"median {np.median(distances):.3f} s, mean {np.mean(distances):.3f} s")
    assert np.median(distances) < 0.08
