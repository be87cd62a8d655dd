"""`label` as a whole, with workers in this process instead of Ray's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.labelling import cluster
from baldwhisper_convert.labelling import label as labelling
from baldwhisper_convert.labelling.shards import Report
from baldwhisper_convert.labelling.worker import Job, Worker
from baldwhisper_mlx.audio.speech_dataset import SpeechData
from tests.support.tiny_labels import Scripted
from tests.support.tiny_speech import tiny_speech


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return tiny_speech(tmp_path / "speech", 6)


class Here:
    """Labels shards in this process; ends early after some of them."""

    def __init__(self) -> None:
        self.model = Scripted(lambda n: f"{n} samples")
        self.jobs: list[Job] = []
        self.most = 99

    def __call__(
        self, job: Job, data: SpeechData, shards: Sequence[int], resources: cluster.Resources
    ) -> Iterator[Report]:
        self.jobs.append(job)
        one = Worker(job, data, [self.model] * (1 + bool(job.settings.second_model)))
        for number, shard in enumerate(shards):
            if number == self.most:
                raise KeyboardInterrupt
            yield one.label_shard(shard)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    here = Here()
    monkeypatch.setattr(labelling, "label_shards", here)
    monkeypatch.setattr(labelling, "check_installed", lambda: None)
    return here


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["label", *map(str, arguments)])


def test_an_interrupted_run_resumes(tmp_path: Path, speech: Path, here: Here) -> None:
    command = (speech, tmp_path / "set", "--model", "m", "--shard-rows", 1)
    here.most = 2
    assert run(*command).exit_code == 130
    here.most = 99
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert "resumes; 2 of 6 rows are labelled" in result.output
    assert "6 of 6 clips kept" in result.output
    assert sum(map(len, here.model.batches)) == 6
    assert "is labelled already" in run(*command).output
    assert len(here.jobs) == 2


def test_options_reach_the_workers(tmp_path: Path, speech: Path, here: Here) -> None:
    model = tmp_path / "models"
    model.mkdir()
    result = run(
        speech, tmp_path / "set", "--model", model, "--second-model", "owner/name",
        "--language", "fr", "--max-wer", 3, "--max-disagreement", 0.5, "--skip-bad",
        "--max-compression-ratio", 3, "--batch-size", 4, "--worker-cpus", 2, "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    job = here.jobs[0]
    assert (job.settings.model, job.settings.second_model) == (str(model), "owner/name")
    assert (job.settings.max_wer, job.settings.max_disagreement) == (3, 0.5)
    assert (job.settings.language, job.settings.max_compression_ratio) == ("fr", 3)
    assert (job.skip_bad, job.batch_size, job.threads, job.device) == (True, 4, 2, "cpu")


def test_another_list_needs_another_folder(tmp_path: Path, speech: Path, here: Here) -> None:
    command = (speech, tmp_path / "set", "--model", "m")
    assert run(*command).exit_code == 0
    listed = speech / "metadata.jsonl"
    listed.write_text(listed.read_text(encoding="utf-8").replace("quick", "slow"), encoding="utf-8")
    result = run(*command)
    assert result.exit_code == 1
    assert "labelled with other settings (list was " in result.output


def test_a_replaced_model_needs_another_folder(tmp_path: Path, speech: Path, here: Here) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"one")
    command = (speech, tmp_path / "set", "--model", model)
    assert run(*command).exit_code == 0
    (model / "weights").write_bytes(b"two")
    assert "model_files was " in run(*command).output


def test_without_ray_the_message_names_the_extra(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run(speech, tmp_path / "set", "--model", "m")
    assert result.exit_code == 1
    assert "pip install 'baldwhisper-mlx[ray]'" in result.output
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [("cluster", "not the address of a Ray cluster"), ("127.0.0.1:1", "no Ray cluster answers")],
)
def test_an_address_without_a_cluster_is_refused_at_once(address: str, message: str) -> None:
    with pytest.raises((ValueError, ConnectionError), match=message):
        cluster.check_reachable(address)


def test_wrong_resources() -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        cluster.Resources(workers=0)
