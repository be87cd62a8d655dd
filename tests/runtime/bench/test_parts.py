"""The parts of `baldwhisper bench`: statistics, cases, clips, roofline, primitives."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.bench import (
    gpu_costs,
    machine,
    memory,
    primitives,
    roofline,
    statistics,
)
from baldwhisper_mlx.bench.audio_clips import read_recordings, take, write_clips
from baldwhisper_mlx.bench.cases import BATCHES, PROTOCOLS, Settings, make_cases
from baldwhisper_mlx.bench.plot import labelled
from baldwhisper_mlx.bench.runtimes import Ours, count_segments
from baldwhisper_mlx.checkpoint.calibrate import write_padding
from baldwhisper_mlx.checkpoint.describe import stored_facts
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.model.whisper import Whisper
from benchmarks.result_files import problems
from tests.runtime.conftest import RATE, tiny_config, tone, write_model

ROOT = Path(__file__).parents[3]
TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20)


@given(TIMES)
def test_quartiles_are_in_order(values: list[float]) -> None:
    found = statistics.quartiles(values)
    assert min(values) <= found["q1"] <= found["median"] <= found["q3"] <= max(values)
    assert found["median"] == pytest.approx(np.median(values))


def test_quartiles_lie_between_neighbours() -> None:
    assert statistics.quartiles([4.0, 1.0, 2.0, 3.0]) == {"median": 2.5, "q1": 1.75, "q3": 3.25}
    assert statistics.quartiles([7.0]) == {"median": 7.0, "q1": 7.0, "q3": 7.0}
    assert all(type(value) is float for value in statistics.quartiles([1.0, 2.0]).values())
    with pytest.raises(ValueError, match="no quartiles"):
        statistics.quartiles([])


def test_contenders_take_turns() -> None:
    turns = list(statistics.alternate(["A", "B", "C"], 2))
    assert turns == [(0, "A"), (0, "B"), (0, "C"), (1, "A"), (1, "B"), (1, "C")]
    with pytest.raises(ValueError, match="at least one round"):
        statistics.alternate(["A"], 0)


def test_speed_ups_pair_the_rounds() -> None:
    # A slow minute hits both of round 2: in pairs it is always 2, while the ratio of any two
    # other rounds is not.
    seconds = {"student": [1.0, 10.0, 1.5], "teacher": [2.0, 20.0, 3.0]}
    assert statistics.speed_ups(seconds, "student", "teacher") == [2.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="not pairs"):
        statistics.speed_ups({"a": [1.0], "b": [1.0, 2.0]}, "a", "b")


def clip_names(settings: Settings, each: int = 2) -> dict[float, list[str]]:
    return {s: [f"{s:g}-{i}" for i in range(each)] for s in settings.audio_seconds()}


def test_every_protocol_has_its_cases() -> None:
    settings = Settings()
    cases = make_cases(settings, clip_names(settings))
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    assert names[0] == "paper, batch 10"
    assert [n for n in names if n.startswith("decode")] == [f"decode, batch {b}" for b in BATCHES]
    assert "clip, 10 min, first token" in names
    assert {case.protocol for case in cases} == set(PROTOCOLS)
    paper = cases[0]
    assert (paper.amount, paper.unit) == (2560, "tokens/s")
    assert paper.arguments == {"batch": 10, "tokens": 256, "timestamps": False}


def test_rounds_get_different_clips_and_start_over() -> None:
    settings = Settings(protocols=("clip",), clip_seconds=(5.0, 600.0), rounds=5)
    cases = {case.name: case for case in make_cases(settings, clip_names(settings))}
    short, long = cases["clip, 5 s, final text"], cases["clip, 10 min, final text"]
    assert [short.round(i)["audio"] for i in range(3)] == ["5-0", "5-1", "5-0"]
    assert short.round(-1)["audio"] == "5-0"
    assert long.round(-1)["audio"] == "30-0"  # ten minutes are not spent on a warm-up
    assert (short.rounds, long.rounds) == (5, 3)


def test_only_the_audio_that_is_needed() -> None:
    assert Settings(protocols=("paper", "encode")).audio_seconds() == []
    assert Settings(protocols=("clip",), clip_seconds=(5.0, 1.0)).audio_seconds() == [1.0, 5.0]
    assert Settings(protocols=("cold",)).audio_seconds() == [10.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocols": ("sing",)},
        {"rounds": 0},
        {"tokens": 0},
        {"batches": (1, 0)},
        {"clip_seconds": (0.0,)},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown protocol|must be positive"):
        Settings(**wrong)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    start=st.integers(0, 10),
    samples=st.integers(0, 300),
)
def test_clips_are_the_recordings_round_and_round(
    lengths: list[int], start: int, samples: int
) -> None:
    recordings = [np.full(n, i, np.float32) for i, n in enumerate(lengths)]
    order = [recordings[(start + i) % len(lengths)] for i in range(len(lengths))]
    expected = np.tile(np.concatenate(order), samples // sum(lengths) + 1)[:samples]
    found = take(recordings, start, samples / RATE)
    np.testing.assert_array_equal(found, expected)


def test_a_folder_is_the_recordings_in_it(tmp_path: Path) -> None:
    for name, seconds in (("b.wav", 0.2), ("a.WAV", 0.1), ("c.flac", 0.3)):
        soundfile.write(tmp_path / name, tone(seconds), RATE)
    (tmp_path / "metadata.jsonl").write_text("")
    (tmp_path / "empty").mkdir()

    def lengths(count: int, seconds: float) -> list[float]:
        found = read_recordings([str(tmp_path)], count, seconds)
        return [len(samples) / RATE for samples in found]

    assert lengths(1, 0) == [0.1]
    assert lengths(1, 0.25) == [0.1, 0.2]
    assert lengths(3, 0) == lengths(9, 9) == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="no recordings in this folder"):
        read_recordings([str(tmp_path / "empty")], 1, 1)


def test_clips_in_files(tmp_path: Path, wav: Path) -> None:
    clips = write_clips([str(wav), str(wav)], [0.5, 2.5], 3, tmp_path)
    assert {seconds: len(paths) for seconds, paths in clips.items()} == {0.5: 2, 2.5: 2}
    for seconds, paths in clips.items():
        assert len(load_audio(paths[0])) == round(seconds * RATE)
    np.testing.assert_allclose(load_audio(clips[0.5][0]), tone(0.5), atol=1e-4)
    with pytest.raises(ValueError, match="no recordings"):
        take([], 0, 1.0)


FORMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "factorized": {"embedding_rank": 8, "embedding_projections": "separate"},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_step_reads_each_weight_once(form: str) -> None:
    config = tiny_config(n_text_layer=2, **FORMS[form])
    model = Whisper(config)
    d, v, layers = config.n_text_state, config.n_vocab, config.n_text_layer
    attention = (3 * d * d + 3 * d) + (d * d + d)
    cross = 2 * (d * d + d)  # query and output; keys and values were projected beforehand
    block = attention + cross + (4 * d * d + 4 * d) + (4 * d * d + d) + 3 * 2 * d
    embedding = v * d if form == "dense" else v * 8 + 2 * 8 * d
    assert roofline.weight_bytes(model) == 4 * (layers * block + 2 * d + embedding)
    everything = roofline.count_floats(model)
    assert everything == sum(value.size for _, value in tree_flatten(model.parameters()))

    caches = 2 * layers * d * 4 * (1500 + 3 + 4.5)
    one = roofline.step_bytes(model, batch=1, prompt=3, tokens=10)
    assert one == pytest.approx(roofline.weight_bytes(model) + caches)
    assert roofline.step_bytes(model, batch=3, prompt=3, tokens=10) == pytest.approx(
        one + 2 * caches
    )


def test_packed_weights_are_not_counted_as_numbers() -> None:
    model = Whisper(tiny_config())
    model.decoder.ln.weight = mx.zeros((3,), mx.uint32)
    assert roofline.count_floats(model) is None


def test_primitives_grow_by_the_layer(tmp_path: Path) -> None:
    counts = []
    for layers in (1, 2, 3):
        folder = write_model(tmp_path / str(layers), tiny_config(n_text_layer=layers))
        counts.append(primitives.count_step(load_model(folder)))
    for key in ("graph", "fused"):
        one, two, three = (count[key] for count in counts)
        assert three - two == two - one > 0
    assert len({count["rules"] for count in counts}) == 1
    assert all(0 < count["rules"] < count["fused"] <= count["graph"] for count in counts)


def test_costs_on_a_gpu(tmp_path: Path) -> None:
    config = tiny_config(n_audio_layer=4, n_text_layer=2)
    loaded = load_model(write_model(tmp_path / "model", config))
    costs = gpu_costs.gpu_costs(loaded, primitives=100, syncs=0.25)
    assert costs is not None
    step = {row["label"]: row for row in costs["step"]}
    whole, short = step["30 s, full context"], step["3 s, padded context"]
    # stored in float32, caches in 16 bits: 2 layers of keys and values, width 32
    caches = 2 * 2 * 32 * 2 * (1500 + 100)
    assert whole["bytes"] == roofline.weight_bytes(loaded.model) + caches
    assert whole["m1_seconds"] == pytest.approx(whole["bytes"] / 68.25e9)
    assert (whole["primitives"], whole["syncs"]) == (100, 0.25)
    assert short["bytes"] < whole["bytes"]
    encode = {row["label"]: row for row in costs["encode"]}
    assert encode["30 s, full context"]["flops"] == roofline.encode_flops(config, 1500)
    assert encode["3 s, full context"]["flops"] == encode["30 s, full context"]["flops"]
    assert encode["3 s, padded context"]["flops"] < 0.3 * encode["3 s, full context"]["flops"]
    assert "30 s, padded context" not in encode
    layers = [encode[f"30 s, full context, {n} encoder layers"]["flops"] for n in (2, 3)]
    layers.append(encode["30 s, full context"]["flops"])  # of four
    assert layers[2] - layers[1] == layers[1] - layers[0] > 0


def test_costs_of_a_model_with_a_short_context_of_its_own(tmp_path: Path) -> None:
    config = tiny_config(n_audio_layer=3, audio_context="dynamic", audio_context_margin=25)
    loaded = load_model(write_model(tmp_path / "model", config))
    costs = gpu_costs.gpu_costs(loaded, primitives=100, syncs=0.25)
    assert costs is not None
    lengths = ["30 s", "10 s", "3 s"]
    assert [row["label"] for row in costs["step"]] == [f"{n}, dynamic context" for n in lengths]
    encode = {row["label"]: row["flops"] for row in costs["encode"]}
    assert list(encode)[:3] == [f"{n}, dynamic context" for n in reversed(lengths)]
    # 3 s have 150 positions, 25 of margin, and are rounded up to whole seconds
    assert encode["3 s, dynamic context"] == roofline.encode_flops(config, 200)
    assert encode["30 s, dynamic context"] == roofline.encode_flops(config, 1500)


def test_primitives_have_names() -> None:
    x = mx.ones((2, 3))
    assert primitives.histogram([mx.exp(mx.exp(x)) @ x.T])["Exp"] == 2


def test_ceilings_are_rates() -> None:
    assert 0 < roofline.bandwidth(2**16, repeats=1) < float("inf")
    assert 0 < roofline.product_rate(8, 16, mx.float16, repeats=1) < float("inf")


def test_segments_are_counted_by_window() -> None:
    segments = [(0, 0.0, 5), (0, 0.0, 7), (2800, 0.4, 3), (5600, 0.3, 2)]
    # 0.4 is the third attempt; 0.3 is none of the schedule, so it was the first
    assert count_segments(segments) == {"tokens": 17, "windows": 3, "fallbacks": 2}


def test_the_machine_is_described() -> None:
    load = machine.load_average()
    found = machine.describe_machine() | {"load_before": load, "load_after": load}
    assert problems(found, "machine") == []
    json.dumps(found)
    assert found["device"] == mx.default_device().type.name
    assert memory.peak_process_bytes() > 10_000_000
    assert len(load) == 3


@pytest.mark.parametrize(
    ("values", "chip"),
    [({"machdep.cpu.brand_string": "Apple M1"}, "Apple M1"), ({}, platform.machine())],
)
def test_a_mac_names_its_chip(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], chip: str
) -> None:
    def run(command: list[str], **_: Any) -> Any:
        assert command[:2] == ["sysctl", "-n"]
        return subprocess.CompletedProcess(command, 0, stdout=values.get(command[2], "") + "\n")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert machine.chip() == chip


def test_facts_of_files(model_folder: Path, tmp_path: Path) -> None:
    facts = stored_facts(model_folder)
    model = load_model(model_folder).model
    assert facts["parameters"] == roofline.count_floats(model)
    assert facts["disk_bytes"] == sum(path.stat().st_size for path in model_folder.iterdir())
    assert (facts["stored_dtype"], facts["quantization"]) == ("float32", None)
    (tmp_path / "config.json").write_text("{}")
    assert stored_facts(tmp_path)["stored_dtype"] is None


def test_the_process_that_waits_loads_no_mlx() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import baldwhisper_mlx.cli.main\n"
        "from baldwhisper_mlx.bench import audio_clips, report_text, runner\n"
        "sys.exit('mlx was loaded' if 'mlx.core' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_points_on_each_other_share_a_label() -> None:
    points = {"a": (1.0, 5.0), "b": (1.05, 5.01), "c": (3.0, 5.0), "d": (1.0, 8.0)}
    assert labelled(points, 10, 10) == [("a, b", (1.0, 5.0)), ("c", (3.0, 5.0)), ("d", (1.0, 8.0))]


def test_encoding_with_constants_costs_their_scores_and_the_tails_projections() -> None:
    config = tiny_config(n_audio_layer=2)
    plain, padded = (roofline.encode_flops(config, 200, *more) for more in ((), (163, 100)))
    scores = 2 * 2 * (2 * 200 * 163 * config.n_audio_state)
    projections = config.n_text_layer * 2 * 100 * config.n_audio_state * 2 * config.n_audio_state
    assert padded - plain == scores + projections


def test_a_padded_model_is_counted_by_its_clip(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", tiny_config())
    assert Ours(folder).describe()["audio_context"] == "full"
    write_padding(folder, [tone(2)])
    assert Ours(folder).describe()["audio_context"] == "padded"
    short, half, full = (Ours(folder).encoder_flops(seconds=s) for s in (3, 15, 30))
    config = tiny_config()
    assert full == roofline.encode_flops(config, 1500)
    assert short == roofline.encode_flops(config, 200, 163, 110)
    assert short < half < full
