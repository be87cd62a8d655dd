"""Two processes take the same steps as one: the same loss curve, the same weights in the end."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from baldwhisper_convert.data.batches import collate, epochs
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.replay import Replay
from baldwhisper_convert.processes import LONGEST_WAIT, Processes
from baldwhisper_convert.training.evaluation import Evaluator
from baldwhisper_convert.training.log import LOG_FILE
from baldwhisper_convert.training.loop import train
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Transcription
from baldwhisper_convert.training.replay import WithReplay
from baldwhisper_convert.training.settings import TrainingSettings
from tests.support.tiny_prepared import (
    GROUPS,
    tiny_prepared,
    tiny_prompts,
    tiny_student,
    tiny_teacher,
)
from tests.support.tiny_runs import PLAIN, STEPS_BETWEEN, Watched, drift, lean, losses, run
from tests.support.torchrun import torchrun

RUNS: dict[str, dict[str, Any]] = {
    "plain": PLAIN | {"epochs": 2, "learning_rate": 1e-3},
    "accumulated": PLAIN
    | {
        "epochs": 2,
        "learning_rate": 1e-3,
        "accumulate": 2,
        "ema": 0.9,
        "evaluate_every": 2,
        "patience": 3,
    },
}

# Each process has a clock of its own, by which they would write checkpoints at different steps.
REPLAY = PLAIN | {"epochs": 1.5, "learning_rate": 1e-3, "freeze": ()}
"""Half of each batch of four is replayed: a window of each language for each process."""

SCRIPT = """
import baldwhisper_mlx
import json, os, sys
from pathlib import Path
import torch
from accelerate import PartialState
from safetensors.torch import save_file
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.processes import Processes
from tests.support import tiny_runs
from tests.convert.training.test_distributed import RUNS, evaluated, replayed

folder, data = Path(sys.argv[1]), Prepared(sys.argv[2])
rank = int(os.environ["RANK"])
tiny_runs.lean()
for name, settings in RUNS.items():
    tiny_runs.tick(seconds=1.0 + rank)
    evaluate = tiny_runs.drift() if "patience" in settings else None
    minutes = {"checkpoint_minutes": tiny_runs.STEPS_BETWEEN}
    weights, results = tiny_runs.run(
        folder / name, data, evaluate=evaluate, **(settings | minutes)
    )
    save_file(weights, folder / f"{name}-{rank}.safetensors")
    (folder / f"{name}-{rank}.json").write_text(json.dumps(results))
tiny_runs.tick(seconds=1.0 + rank)
weights = replayed(folder / "replay", folder.parent)
save_file(weights, folder / f"replay-{rank}.safetensors")
results, read = evaluated(data, Processes.start())
(folder / f"evaluation-{rank}.json").write_text(json.dumps([results, read]))
(folder / f"processes-{rank}.json").write_text(str(PartialState().num_processes))
backend = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
(folder / f"timeout-{rank}.txt").write_text(str(backend.options._timeout))
"""


def replayed(folder: Path, speech: Path) -> dict[str, torch.Tensor]:
    """Fine-tunes with replay; returns the weights.

    Args:
        folder: of the run.
        speech: has `main` and `other`, log-mel in two languages.
    """
    data = Replay(Prepared(speech / "main"), Prepared(speech / "other"), 0.5)
    model = tiny_teacher()
    model.train()
    same = tuple((layer,) for layer in range(model.dims.n_text_layer))
    objective = WithReplay(Transcription(), tiny_teacher(), same, full_context=True)
    train(model, objective, data, tiny_prompts(), TrainingSettings(**REPLAY), folder)
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def evaluated(data: Prepared, processes: Processes | None = None) -> tuple[dict[str, float], int]:
    """What a student's evaluation finds, and how many windows this process read for it."""
    watched = Watched(data, lambda _: None)
    objective = Distillation(tiny_teacher(), GROUPS, LossSettings(hidden=1.0))
    evaluate = Evaluator(watched, tiny_prompts(), objective, batch_size=1, processes=processes)
    student = tiny_student()
    student.eval()
    return evaluate(student), watched.reads


@pytest.fixture(scope="module")
def twofold(tmp_path_factory: pytest.TempPathFactory, data: Prepared) -> Path:
    """The folder of all `RUNS`, done by two processes."""
    folder = tmp_path_factory.mktemp("two") / "runs"
    folder.mkdir()
    tiny_prepared(folder.parent / "main", 12, mel=True)
    tiny_prepared(folder.parent / "other", 7, mel=True, seed=1, language="fr")
    script, log = folder / "script.py", folder / "output.log"
    script.write_text(SCRIPT)
    assert torchrun(script, folder, data.folder, log=log) == 0, log.read_text()
    # Not from the log, where what two processes print may be mixed.
    assert [(folder / f"processes-{rank}.json").read_text() for rank in (0, 1)] == ["2", "2"]
    return folder


def test_processes_wait_for_each_other_as_long_as_it_takes(twofold: Path) -> None:
    """For the main process to merge layers, or for the slowest to prepare its windows."""
    for rank in (0, 1):
        limit = (twofold / f"timeout-{rank}.txt").read_text()
        assert limit == str(timedelta(hours=LONGEST_WAIT))
    assert timedelta(hours=LONGEST_WAIT) > 10 * torch.distributed.constants.default_pg_timeout


def test_an_evaluation_is_shared(twofold: Path, data: Prepared, monkeypatch: Any) -> None:
    """Each process evaluates about half of the windows; both get the results of one, exactly."""
    lean(monkeypatch.setattr)
    expected, read = evaluated(data)
    found = [json.loads((twofold / f"evaluation-{rank}.json").read_text()) for rank in (0, 1)]
    assert [results for results, _ in found] == [expected, expected]
    assert sum(reads for _, reads in found) == read
    assert all(0.3 * read < reads < 0.7 * read for _, reads in found)


def flat(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [{k: v for k, v in (row | row.get("dev", {})).items() if k != "dev"} for row in rows]


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_do_what_one_does(
    tmp_path: Path, twofold: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lean(monkeypatch.setattr)
    settings = RUNS[name]
    evaluate = drift() if "patience" in settings else None
    weights, results = run(tmp_path, data, evaluate=evaluate, **settings)
    one, two = flat(losses(tmp_path)), flat(losses(twofold / name))
    assert len(one) == len(two) == results["steps"] + (results["steps"] // 2 if evaluate else 0)
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-6)
    found = [load_file(twofold / f"{name}-{rank}.safetensors") for rank in range(2)]
    for each in found:
        assert each.keys() == weights.keys()
        for key, weight in weights.items():
            torch.testing.assert_close(each[key], weight, rtol=1e-5, atol=1e-5)
    # The processes agree to the last bit.
    assert all(torch.equal(found[0][key], found[1][key]) for key in weights)
    reported = json.loads((twofold / f"{name}-0.json").read_text())
    assert reported.keys() == results.keys()
    assert reported.get("best_step") == results.get("best_step")


def test_two_processes_replay_what_one_does(
    tmp_path: Path, twofold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has windows of both languages, and they count as in one batch."""
    lean(monkeypatch.setattr)
    weights = replayed(tmp_path / "one", twofold.parent)
    one, two = losses(tmp_path / "one"), losses(twofold / "replay")
    assert len(one) == len(two) == 9
    assert all(row["replay"] > 0 for row in one[1:])  # the first time, it is its own teacher
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5)
    found = [load_file(twofold / f"replay-{rank}.safetensors") for rank in range(2)]
    start = tiny_teacher().state_dict()
    for key, weight in weights.items():
        # AdamW divides a gradient near zero, where the model equals its teacher, by its own size.
        torch.testing.assert_close(found[0][key], weight, rtol=1e-5, atol=5e-5)
        assert torch.equal(found[0][key], found[1][key])
    moved = max(float((weights[key] - start[key]).abs().max()) for key in weights)
    assert moved > 1e-3  # by far more than the processes may differ


def test_their_batches_have_unequal_numbers_of_tokens(data: Prepared) -> None:
    # Or a mean of the processes' means would pass the test above.
    settings = TrainingSettings(**RUNS["plain"])
    batches = epochs(data, settings.batch_size, settings.seed)
    unequal = 0
    for step in range(8):
        _, windows = next(batches)
        halves = [
            collate(data, windows[rank::2], tiny_prompts(), settings.mix, step=step)
            for rank in range(2)
        ]
        unequal += int(halves[0].mask.sum()) != int(halves[1].mask.sum())
    assert unequal >= 6


def test_the_run_with_two_processes_left_no_checkpoint(twofold: Path) -> None:
    assert STEPS_BETWEEN < 1
    for name in [*RUNS, "replay"]:
        left = {path.name for path in (twofold / name).iterdir()}
        assert left == {LOG_FILE, "final.safetensors", "finished.json"}
