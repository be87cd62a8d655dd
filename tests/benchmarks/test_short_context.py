"""The comparison of audio contexts: what is compared, its figures, resuming, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner, Result

from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.model.padding import ENDING
from benchmarks.accuracy import short_context, short_context_clips
from benchmarks.accuracy.adversarial import hum, silence
from benchmarks.accuracy.short_context_lengths import clips_by_length
from benchmarks.accuracy.short_context_measure import load_full, measure
from benchmarks.accuracy.short_context_summary import length_bin, load_range, summarize
from benchmarks.accuracy.short_context_variants import CUT_OFF, FULL, Contexts, all_variants
from benchmarks.report.short_context import NOTHING, decoding, short_context_part
from tests.support.tiny_speech import sound, tiny_speech, tiny_teacher

PADDED = all_variants([8], [10], [1])[-1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return export_mlx(tiny_teacher(), folder, dtype="float32")


@pytest.fixture
def contexts(model: Path) -> Contexts:
    return Contexts(load_full(model), [sound(3.0)])


def cross_keys(contexts: Contexts) -> mx.array:
    """Cross-attention keys of the first decoder layer (1, H, T, head_dim) for 1 s of sound."""
    loaded = contexts.loaded
    mel = LogMelSpectrogram(sound(1.0), loaded.config.n_mels)
    cache = loaded.model.make_cache()
    loaded.model.encode(mel.window(0)[None], [mel.n_frames], cache)
    return cache[0].cross_attn.state()[0]


def test_the_context_changes_from_clip_to_clip(contexts: Contexts) -> None:
    contexts.use(FULL)
    full = cross_keys(contexts)
    assert full.shape[2] == 1500
    contexts.use(CUT_OFF)
    cut_off = cross_keys(contexts)
    assert cut_off.shape[2] == 100  # 1 s and the margin, rounded up to 2 s
    contexts.use(PADDED)
    padded = cross_keys(contexts)
    assert padded.shape[2] == 100 + 10 + ENDING

    def error(keys: mx.array) -> float:
        return float(mx.mean(mx.square(keys[:, :, :50] - full[:, :, :50])).item())

    assert error(padded) < error(cut_off)
    contexts.use(FULL)
    assert mx.array_equal(cross_keys(contexts), full)


def test_a_checkpoint_of_another_context_is_refused(tmp_path: Path) -> None:
    folder = export_mlx(tiny_teacher(), tmp_path / "m", audio_context="dynamic")
    with pytest.raises(ValueError, match="trained with the audio context 'dynamic'"):
        Contexts(load_model(folder), [])
    with pytest.raises(ValueError, match="trained for a dynamic audio context"):
        load_full(folder)


def test_names_of_variants() -> None:
    assert [variant.name for variant in all_variants([8], [9], [1], False)] == [
        "full",
        "stride 8, tail 9",
    ]
    names = [variant.name for variant in all_variants([1, 8], [100], [6])]
    assert names == ["full", "cut off", "stride 1, tail 100", "stride 8, tail 100"]
    assert all_variants([8], [25], [1, 6])[-1].name == "stride 8, tail 25, 6 recordings"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.5, (0, 1)), (1.0, (0, 1)), (1.1, (1, 2)), (5.0, (2, 5)), (5.1, (5, None))],
)
def test_length_bins(seconds: float, expected: tuple[int, int | None]) -> None:
    assert length_bin(seconds, [1, 2, 5]) == expected


def row(variant: str, item: str, text: str, seconds: float, **changes: Any) -> dict[str, Any]:
    plain = {"variant": variant, "item": item, "text": text, "seconds": seconds, "duration": 1.5}
    plain |= {"data": "a", "reference": "one two three four", "load": 1.0, "again": 0}
    return plain | {"encoder_seconds": seconds / 2} | changes


LOOP = "I'm going to go. " * 8
ROWS = [
    row("full", "1", "one two three", 2.0),
    row("full", "2", "one two three four", 4.0),
    row("full", "3", "one two three four", 3.0, data="b", duration=7.0),
    row("full", "hum", "", 1.0, data=None),
    row("padded", "1", "one two tree four", 1.0),
    row("padded", "2", LOOP, 1.0, again=2),
    row("padded", "3", "", 6.0, data="b", duration=7.0, load=3.0),
    row("padded", "hum", "a hum", 1.0, data=None, again=1),
]


def test_summary() -> None:
    found = summarize(ROWS, "full", [2, 5, 10], load_normalizer("basic"))
    full, padded = found["full"], found["padded"]
    assert full["wer"] == pytest.approx(1 / 12, abs=1e-4)
    assert (full["insertions"], full["deletions"], full["substitutions"]) == (0, 1, 0)
    assert (full["difference"], full["difference_interval"]) == (0, [0, 0])
    nothing = {"with_text": 0, "words": 0, "loops": 0, "again": 0, "texts": {}}
    assert full["sounds"] == {"number": 1} | nothing
    assert (full["again"], padded["again"], padded["sounds"]["again"]) == (0, 1, 1)
    assert padded["words"] == 12
    errors = sum(padded[kind] for kind in ("insertions", "deletions", "substitutions"))
    assert padded["wer"] == pytest.approx(errors / 12, abs=1e-4)
    assert padded["difference"] == pytest.approx((errors - 1) / 12, abs=1e-4)
    assert (padded["loops"], padded["empty"]) == (1, 1)
    folder = {"clips": 1, "wer": 1.0, "difference": 1.0, "difference_interval": [1.0, 1.0]}
    assert padded["data"]["b"] == folder
    assert (padded["sounds"]["words"], padded["sounds"]["texts"]) == (2, {"hum": "a hum"})
    short, long = padded["lengths"]
    assert (short["above"], short["up_to"], short["clips"]) == (0, 2, 2)
    assert (short["seconds"], short["speed_up"], short["encoder_speed_up"]) == (1, 3, 3)
    assert (long["above"], long["up_to"], long["speed_up"]) == (5, 10, 0.5)
    assert load_range(ROWS) == {"least": 1.0, "median": 1.0, "most": 3.0}


def test_variants_are_compared_on_the_same_clips_only() -> None:
    with pytest.raises(ValueError, match="same clips"):
        summarize(ROWS[:-1], "full", [2], load_normalizer("basic"))


@pytest.mark.parametrize("kind", ["white", "pink", "tones", "speech/dev"])
def test_noise_has_the_wanted_power(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_speech(tmp_path / "speech" / "dev", 2)
    monkeypatch.chdir(tmp_path)
    clean = sound(2.0)
    noise = short_context_clips.with_noise(clean, f"{kind}=10", seed=1) - clean
    ratio = 10 * np.log10(np.mean(np.square(clean)) / np.mean(np.square(noise)))
    assert ratio == pytest.approx(10, abs=0.01)


def test_noise_of_recordings(tmp_path: Path) -> None:
    """They change from clip to clip, and start over where one is shorter than the clip."""
    folder, clean = tiny_speech(tmp_path / "dev", 2), np.full(4 * 16_000, 0.1, np.float32)
    first, second, third = (
        short_context_clips.with_noise(clean, f"{folder}=0", seed=seed) - clean for seed in range(3)
    )
    np.testing.assert_allclose(first, third, atol=1e-6)
    assert np.abs(first - second).max() > 0.01
    n = len(load_audio(folder / "000.wav"))
    np.testing.assert_allclose(first[:100], first[n : n + 100], atol=1e-6)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no recordings"):
        short_context_clips.with_noise(clean, f"{tmp_path / 'empty'}=0", seed=0)


def test_clips_are_taken_at_equal_steps(tmp_path: Path) -> None:
    folder = tiny_speech(tmp_path / "a" / "dev", 6)
    names = [clip.name for clip in short_context_clips.clips([folder], 3, None)]
    assert names == ["a/dev/000.wav", "a/dev/002.wav", "a/dev/004.wav"]
    assert len(list(short_context_clips.clips([folder], 9, None))) == 6


def test_clips_of_every_length(tmp_path: Path) -> None:
    """Six clips of 0.4 to 1.8 s by two speakers; longer ones are two neighbours of one speaker."""
    folder = tiny_speech(tmp_path / "a" / "dev", 6)
    found = list(clips_by_length([folder], [1, 2], 2, None))
    assert [clip.name.removeprefix("a/dev/") for clip in found] == [
        "000.wav",
        "002.wav",
        "001.wav",
        "003.wav",
        "000.wav + 001.wav",
        "001.wav + 002.wav",
    ]
    first, second = (load_audio(folder / name) for name in ("000.wav", "001.wav"))
    pause = np.zeros(round(0.3 * 16_000), np.float32)
    np.testing.assert_array_equal(found[4].samples, np.concatenate([first, pause, second]))
    assert found[4].reference == f"{found[0].reference} {found[2].reference}"
    assert found[4].data == "a/dev"
    seconds = [len(clip.samples) / 16_000 for clip in found]
    assert [length_bin(one, [1, 2]) for one in seconds] == [
        place for place in ((0, 1), (1, 2), (2, None)) for _ in range(2)
    ]
    noisy = list(clips_by_length([folder], [1, 2], 2, "pink=10"))
    assert all((a.samples != b.samples).any() for a, b in zip(found, noisy, strict=True))


def test_constants_without_a_recording(contexts: Contexts) -> None:
    contexts.use(FULL)
    full = cross_keys(contexts)
    contexts.use(all_variants([8], [10], [0, 1])[2])
    zeros = cross_keys(contexts)
    contexts.use(all_variants([8], [10], [0, 1])[3])
    speech = cross_keys(contexts)
    assert zeros.shape == speech.shape
    assert not mx.array_equal(zeros, speech)
    # The last position of 30 s: far behind the clip, where both are nearly the full context's.
    assert mx.allclose(zeros[:, :, -1], full[:, :, -1], atol=0.2)


def test_windows_that_are_decoded_again_are_counted(contexts: Contexts) -> None:
    """A random model's output is improbable, so every window is; in full context none is."""
    item = short_context_clips.Item("a", "dev", "a fox", sound(2.0))
    settings = {"language": "en", "timestamps": True, "fallback": True}
    counts = []
    for variant in (FULL, PADDED):
        contexts.use(variant)
        counts.append(measure(contexts.loaded, item, settings)["again"])
    assert counts[0] == 0
    assert counts[1] > 0


@pytest.fixture
def few_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_context_clips, "SOUNDS", {"silence": (silence, 0), "hum": (hum, 0)})
    monkeypatch.setattr(short_context_clips, "SOUND_SECONDS", (1,))


def run(model: Path, output: Path, *options: str, data: Path | None = None) -> Result:
    folder = data or tiny_speech(output.parent / "speech" / "dev", 2)
    arguments = ["--model", f"tiny={model}", "--data", str(folder), "--output", str(output)]
    return CliRunner().invoke(short_context.main, [*arguments, "--tail", "10", *options])


@pytest.mark.usefixtures("few_sounds")
def test_figures_resuming_and_the_page(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "short_context.json"
    result = run(model, output)
    assert result.exit_code == 0, result.output
    (first,) = json.loads(output.read_text())["runs"]
    variants = first["models"]["tiny"]
    assert list(variants) == ["full", "cut off", "stride 8, tail 10"]
    assert [found["data"]["speech/dev"]["clips"] for found in variants.values()] == [2, 2, 2]
    assert [found["sounds"]["number"] for found in variants.values()] == [2, 2, 2]
    assert "tiny, cut off: WER" in result.output

    work = output.with_suffix(".jsonl")
    lines = work.read_text().splitlines()
    assert len(lines) == 3 * (2 + 2)
    work.write_text("\n".join(lines[:5]) + "\n")
    assert run(model, output).exit_code == 0
    resumed = work.read_text().splitlines()
    assert resumed[:5] == lines[:5]
    measured = [json.loads(line) for line in resumed]
    assert {(row["variant"], row["item"]) for row in measured} == {
        (row["variant"], row["item"]) for row in map(json.loads, lines)
    }
    assert len(measured) == len(lines)
    assert len(json.loads(output.read_text())["runs"]) == 1  # the same settings: replaced

    options = ("--stride", "4,8", "--noise", "pink=10", "--without-timestamps", "--dtype")
    one = tiny_speech(tmp_path / "short" / "dev", 1)
    assert run(model, output, *options, "float16", data=one).exit_code == 0
    assert run(model, output, "--per-length", "1", "--without-sounds").exit_code == 0
    assert len(json.loads(output.read_text())["runs"]) == 3
    by_length = json.loads(output.read_text())["runs"][2]["models"]["tiny"]
    assert by_length["full"]["sounds"]["number"] == 0
    page = short_context_part(tmp_path)
    assert page.count("### tiny") == 3
    for part in (
        "### tiny, greedy\n",
        "### tiny, greedy, without timestamps, float16, pink noise 10 dB, strides\n",
        "### tiny, greedy, by length\n",
        "2 clips of speech/dev, 6 words. Greedy at temperature 0 with timestamps and w",
        "3 words; with pink noise 10 dB below the speech. Greedy at temperature 0 without time",
        "without fallback, float16, language en",
        "constants from one recording of sample.wav",
        "| speech | clips | full | cut off | stride 8, tail 10 |",
        "| clip | clips | full | cut off | stride 8, tail 10 |",
    ):
        assert part in page


def test_decoding_is_described() -> None:
    found = decoding({"timestamps": True, "fallback": True})
    assert found == "Decoding with timestamps and with the fallback to higher temperatures"


def test_no_figures_without_a_measurement(tmp_path: Path) -> None:
    assert short_context_part(tmp_path) == NOTHING


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stride", "8,x"), "give whole numbers above zero, such as 1,4,8"),
        (("--tail", "0"), "give whole numbers above zero, such as 1,4,8"),
        (("--noise", "brown=3"), "give white, pink, tones or a folder of recordings"),
        (("--noise", "pink=loud"), "dB, such as pink=10"),
        (("--calibration-recordings", "4"), "recordings to calibrate on: 1"),
        (("--calibration-recordings", "-1"), "give whole numbers from zero on, such as 0,4,8"),
        (("--limit", "2", "--per-length", "2"), "give one of them"),
    ],
)
def test_bad_options(model: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result = run(model, tmp_path / "out.json", *options)
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out.json").exists()
