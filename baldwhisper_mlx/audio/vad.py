"""Where in a recording somebody speaks, and what to do with the rest.

Two detectors. Silero's network, if its package and onnxruntime are installed (the extra `vad`),
tells speech from other sounds; its ONNX file is run as it is, without torch, which its package
would import. Without it, loudness: what stands out from the noise of the recording is speech.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples, blocks
from baldwhisper_mlx.audio.chunking import _BLOCK_HOPS, ENERGY_HOP, Span, levels
from baldwhisper_mlx.config import SAMPLE_RATE

Method = Literal["silero", "energy"]


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What counts as speech.

    Raises:
        ValueError: a threshold that is no probability, or a negative time.
    """

    threshold: float = 0.5
    """Probability from which on speech begins."""
    release: float = 0.35
    """Probability below which it ends."""
    shortest: float = 0.2
    """Seconds; shorter spans are no speech."""
    pause: float = 0.5
    """Seconds; shorter pauses do not end speech."""
    pad: float = 0.3
    """Seconds kept before and after."""

    def __post_init__(self) -> None:
        if not 0 <= self.release <= self.threshold <= 1:
            raise ValueError("vad: 0 <= release <= threshold <= 1 must hold")
        if min(self.shortest, self.pause, self.pad) < 0:
            raise ValueError("vad: times must not be negative")


def default_method() -> Method:
    """`silero` if its package and onnxruntime are installed, else `energy`."""
    found = [importlib.util.find_spec(name) for name in ("silero_vad", "onnxruntime")]
    return "silero" if all(found) else "energy"


def speech_spans(
    samples: Samples, method: Method | None = None, speech: Speech | None = None
) -> list[Span]:
    """Spans of speech, in order, apart from each other.

    Args:
        samples: mono at 16 kHz (n,), float32.
        method: the detector; None for the best that is installed.
        speech: what counts.

    Raises:
        ValueError: an unknown method.
        ModuleNotFoundError: `silero`, and it is not installed.
    """
    method, speech = method or default_method(), speech or Speech()
    if method not in get_args(Method):
        raise ValueError(f"vad: the method is silero or energy, not {method!r}")
    if method == "silero":
        hop, probabilities = SILERO_HOP, silero_probabilities(samples)
    else:
        hop, probabilities = ENERGY_HOP, energy_probabilities(samples)
    return spans_of(probabilities, hop, len(samples), speech)


def spans_of(
    probabilities: npt.NDArray[np.float32], hop: int, n_samples: int, speech: Speech
) -> list[Span]:
    """Spans from the probability of speech in every `hop` samples.

    Args:
        probabilities: (n,), 0 to 1.
        hop: samples from one to the next.
        n_samples: of the recording.
        speech: thresholds and times.
    """
    spans: list[list[int]] = []
    speaking = False
    for i, probability in enumerate(probabilities):
        if not speaking and probability >= speech.threshold:
            speaking = True
            spans.append([i * hop, (i + 1) * hop])
        elif speaking and probability < speech.release:
            speaking = False
        if speaking:
            spans[-1][1] = (i + 1) * hop
    joined = _joined(spans, round(speech.pause * SAMPLE_RATE))
    shortest = round(speech.shortest * SAMPLE_RATE)
    long = [span for span in joined if span[1] - span[0] >= shortest]
    pad = round(speech.pad * SAMPLE_RATE)
    padded = [[max(0, start - pad), min(n_samples, end + pad)] for start, end in long]
    return [(start, end) for start, end in _joined(padded, 0) if end > start]


def _joined(spans: Sequence[Sequence[int]], gap: int) -> list[list[int]]:
    """Spans of which those with at most `gap` samples between them are one."""
    found: list[list[int]] = []
    for start, end in spans:
        if found and start - found[-1][1] <= gap:
            found[-1][1] = max(end, found[-1][1])
        else:
            found.append([start, end])
    return found


_QUIET = 10 ** (-55 / 20)
"""Full scale is 1; below this nothing is speech, however quiet the rest."""
_ABOVE_NOISE = 10 ** (10 / 20)
"""How much louder than the noise speech is."""


def energy_probabilities(samples: Samples) -> npt.NDArray[np.float32]:
    """1 where 30 ms of sound stand out from the noise of the recording, else 0, every 10 ms.

    The noise is the level that the quietest tenth of the recording stays below. Where all of it
    is as loud, as in steady noise or a hum, nothing stands out.
    """
    level = levels(samples)
    noise = float(np.quantile(level, 0.1)) if len(level) else 0.0
    return (level > max(_QUIET, _ABOVE_NOISE * noise)).astype(np.float32)


SILERO_HOP = 512
_SILERO_CONTEXT = 64


def silero_probabilities(samples: Samples) -> npt.NDArray[np.float32]:
    """The probability of speech in every 32 ms, by Silero's network (MIT).

    Raises:
        ModuleNotFoundError: silero-vad or onnxruntime is not installed.
    """
    session = _silero()
    state = np.zeros((2, 1, 128), np.float32)
    rate = np.array(SAMPLE_RATE, np.int64)
    before = np.zeros(_SILERO_CONTEXT, np.float32)
    found: list[float] = []
    for block in blocks(samples, _BLOCK_HOPS * SILERO_HOP):
        rest = np.zeros(-len(block) % SILERO_HOP, np.float32)
        padded = np.concatenate([before, block, rest])
        before = padded[len(padded) - _SILERO_CONTEXT :]
        for start in range(0, len(padded) - _SILERO_CONTEXT, SILERO_HOP):
            window = padded[None, start : start + SILERO_HOP + _SILERO_CONTEXT]
            probability, state = session.run(None, {"input": window, "state": state, "sr": rate})
            found.append(probability.item())
    return np.array(found, np.float32)


def _silero() -> Any:
    if default_method() != "silero":
        raise ModuleNotFoundError('Silero VAD is not installed: pip install "baldwhisper-mlx[vad]"')
    import onnxruntime

    # Its place is asked for, because importing the package would import torch.
    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None and spec.submodule_search_locations  # noqa: PT018
    path = Path(next(iter(spec.submodule_search_locations)), "data", "silero_vad.onnx")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
