"""Search for the merging weights: Bayesian optimization of alpha and beta with Ax.

As in the paper (Sy et al., arXiv 2510.08599, section 3.1): each trial merges the teacher's layers
with alpha and beta in [0, 10], trains the student on part of the speech and is scored by its word
error rate on part of the development data. Merged layers depend on alpha / (alpha + beta) only, so
one dimension would be enough; we search in two, as in the paper.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.speech import Speech
from baldwhisper_convert.locks import check_single_process, lock_folder
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.search_state import SearchState
from baldwhisper_convert.pipeline.settings import plain_settings
from baldwhisper_convert.pipeline.stages import run_merge
from baldwhisper_convert.pipeline.training_stages import run_distill
from baldwhisper_convert.progress import working_on
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from baldwhisper_mlx.files import atomic_file, read_json, write_atomically

TRIALS_FILE, CONTOUR_FILE = "trials.json", "search.png"
LARGEST = 10.0
"""Upper bound of alpha and of beta, as in the paper."""
SMALLEST_SUM = 0.01
"""Lower bound of alpha + beta, which must not both be 0."""

Point = dict[str, float]
"""`alpha` and `beta`."""

_AX_NAMES = {"lower": "alpha", "upper": "beta"}
"""Ax refuses a parameter called beta, which is a function in its parser of constraints."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of the search.

    Raises:
        ValueError: no trials, or a method of merging without a single alpha and beta.
    """

    trials: int = 30
    """Number of trials."""
    seed: int = 0
    """Of the proposals."""
    merge: MergeSettings = field(default_factory=MergeSettings)
    """The groups of layers; its alpha and beta are replaced by those of the trial."""
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=1))
    """Training of each trial; the score is its best evaluation on the development data."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Of each trial's training."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, not {self.trials}")
        if self.merge.method != "merge" or self.merge.weights:
            raise ValueError(
                'the search needs merge.method = "merge" and one alpha and beta for all groups'
            )
        if self.merge.part != "decoder":
            raise ValueError('the search is for decoder layers; leave out merge.part = "encoder"')


class Optimizer(Protocol):
    """Proposes points and is given their scores."""

    def ask(self) -> tuple[int, Point]:
        """Returns the number and the point of the next trial."""
        ...

    def tell(self, trial: int, score: float) -> None:
        """Reports the score of a trial; smaller is better."""
        ...

    def state(self) -> Any:
        """Returns the optimizer's state as JSON values."""
        ...


class AxOptimizer:
    """Ax with its default methods: quasi-random points first, then Bayesian optimization.

    Args:
        seed: of the quasi-random points.
        state: of an earlier optimizer, to resume it.

    Raises:
        ModuleNotFoundError: the package ax-platform is not installed.
    """

    def __init__(self, seed: int, state: Any = None) -> None:
        if importlib.util.find_spec("ax") is None:
            raise ModuleNotFoundError(
                'the search needs Ax; run pip install "baldwhisper-mlx[convert,search]"'
            )
        from ax.api.client import Client
        from ax.api.configs import RangeParameterConfig

        if state is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "ax.json")
                path.write_text(json.dumps(state), encoding="utf-8")
                self._client = Client.load_from_json_file(str(path))
            return
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(
            parameters=[
                RangeParameterConfig(name=name, parameter_type="float", bounds=(0.0, LARGEST))
                for name in _AX_NAMES
            ],
            parameter_constraints=[f"{' + '.join(_AX_NAMES)} >= {SMALLEST_SUM}"],
        )
        self._client.configure_optimization(objective="-wer")
        self._client.configure_generation_strategy(initialization_random_seed=seed)

    def ask(self) -> tuple[int, Point]:
        """As `Optimizer.ask`."""
        ((trial, point),) = self._client.get_next_trials(max_trials=1).items()
        return trial, {ours: float(point[name]) for name, ours in _AX_NAMES.items()}

    def tell(self, trial: int, score: float) -> None:
        """As `Optimizer.tell`."""
        self._client.complete_trial(trial_index=trial, raw_data={"wer": score})

    def state(self) -> Any:
        """As `Optimizer.state`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "ax.json")
            self._client.save_to_json_file(str(path))
            return read_json(path)


def search(
    teacher: Checkpoint,
    settings: SearchSettings,
    speech: Speech,
    dev: Speech,
    folder: Path,
    *,
    optimizer: Callable[[int, Any], Optimizer] = AxOptimizer,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Runs the trials, or resumes an interrupted search.

    Args:
        teacher: its layers are merged.
        settings: of the search and its trials.
        speech: training data of each trial.
        dev: development data that each trial is scored on.
        folder: for `search.json`, from which a search resumes, and at the end `trials.json`, the
            same without the optimizer's state, and a contour plot.
        optimizer: creates one from a seed and, to resume, a state.
        say: receives progress messages.

    Returns:
        The best trial: `alpha`, `beta`, `wer`, `seconds`.

    Raises:
        FileExistsError: the folder holds a search with other settings or data.
        BlockingIOError: another process searches in the folder.
        ValueError: a damaged state, or several processes were started for the search.
        ModuleNotFoundError: Ax is not installed.
    """
    check_single_process("search")
    with lock_folder(folder, "searches"):
        progress = SearchState(folder, _key(teacher, settings, speech, dev), settings)
        proposer = optimizer(settings.seed, progress.state["optimizer"])
        while len(progress.trials) < settings.trials:
            # The proposed point is stored before the trial, so that an interrupted trial resumes.
            if progress.state["pending"] is None:
                number, point = proposer.ask()
                progress.save(optimizer=proposer.state(), pending={"trial": number} | point)
            pending = dict(progress.state["pending"])
            number = int(pending.pop("trial"))
            work = folder / f"trial-{number}"
            trial = f"trial {len(progress.trials) + 1} of {settings.trials}"
            with working_on(trial, settings.trials - len(progress.trials) - 1):
                result = _run_trial(teacher, settings, speech, dev, pending, work)
            proposer.tell(number, result["wer"])
            progress.save(
                optimizer=proposer.state(),
                pending=None,
                trials=[*progress.trials, pending | result],
            )
            shutil.rmtree(work)
            say(
                f"{len(progress.trials)} of {settings.trials}: alpha {pending['alpha']:.2f}, "
                f"beta {pending['beta']:.2f}: WER {100 * result['wer']:.2f} %"
            )
        _write_results(folder, progress, speech, dev)
    return min(progress.trials, key=lambda trial: trial["wer"])


def _write_results(folder: Path, progress: SearchState, speech: Speech, dev: Speech) -> None:
    """Writes the trials without the optimizer's state, and the plot."""
    kept: dict[str, Any] = {
        "settings": progress.state["settings"],
        "train_windows": len(speech.windows.windows),
        "dev_windows": len(dev.windows.windows),
        "trials": progress.trials,
    }
    write_atomically(folder / TRIALS_FILE, json.dumps(kept, indent=1) + "\n")
    plot_trials(progress.trials, folder / CONTOUR_FILE)


def _run_trial(
    teacher: Checkpoint,
    settings: SearchSettings,
    speech: Speech,
    dev: Speech,
    point: Point,
    folder: Path,
) -> dict[str, float]:
    """Merges, trains and scores one student; an interrupted training resumes."""
    model = Model.of(teacher)
    weights = dataclasses.replace(settings.merge, alpha=point["alpha"], beta=point["beta"])
    merged, _ = run_merge(model, weights, None, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _, metrics = run_distill(merged, teacher, settings.training, settings.loss, speech, dev, folder)
    return {name: metrics[name] for name in ("wer", "seconds")}


def plot_trials(trials: Sequence[dict[str, Any]], picture: Path) -> None:
    """Draws word error rates over (alpha, beta) as contours; does nothing without matplotlib.

    Contours interpolate linearly between the trials. With fewer than four trials, or with the same
    alpha or beta in all of them, only points are drawn.

    Args:
        trials: with `alpha`, `beta` and `wer`.
        picture: the image file to write.
    """
    if not importlib.util.find_spec("matplotlib"):
        return
    from matplotlib.figure import Figure

    alphas, betas = [t["alpha"] for t in trials], [t["beta"] for t in trials]
    rates = [100 * t["wer"] for t in trials]
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    drawn: Any
    if len(trials) > 3 and len(set(alphas)) > 1 and len(set(betas)) > 1:
        drawn = axes.tricontourf(alphas, betas, rates, levels=12, cmap="viridis")
    else:
        drawn = axes.scatter(alphas, betas, c=rates, cmap="viridis")
    axes.plot(alphas, betas, "k.", ms=4)
    best = min(range(len(trials)), key=lambda i: rates[i])
    axes.plot(alphas[best], betas[best], "r*", ms=14, label=f"best: {rates[best]:.1f} %")
    axes.set(
        xlabel="alpha (lower layer)", ylabel="beta (upper layer)",
        xlim=(0, LARGEST), ylim=(0, LARGEST),
    )  # fmt: skip
    axes.legend(loc="upper right")
    figure.colorbar(drawn, ax=axes, label="WER in %")
    with atomic_file(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _key(teacher: Checkpoint, settings: SearchSettings, speech: Speech, dev: Speech) -> str:
    """Hash of everything but the number of trials, which may be raised later; 16 digits."""
    plain = dataclasses.asdict(settings)
    del plain["trials"]
    sections = ("merge", "training", "loss")
    plain |= {name: plain_settings(getattr(settings, name)) for name in sections}
    parts = {
        "settings": plain, "teacher": fingerprint(teacher),
        "train": [*speech.fingerprints.items(), len(speech.windows.windows)],
        "dev": [*dev.fingerprints.items(), len(dev.windows.windows)],
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
