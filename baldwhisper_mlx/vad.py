"""Where in a recording somebody speaks, and what to do with the rest.

Two detectors. Silero's network, if its package and onnxruntime are installed (the extra `vad`),
tells speech from other sounds; its ONNX file is run as it is, without torch, which its package
would import. Without it, loudness: what stands out from the noise of the recording is speech.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.samples import Collector, Samples, blocks

Method = Literal["silero", "energy"]
Span = tuple[int, int]
"""First sample, and the one after the last."""


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


_BLOCK_HOPS = 2000
ENERGY_HOP = SAMPLE_RATE // 100
_ENERGY_WIDTH = 3 * ENERGY_HOP
_QUIET_WIDTH = 20  # times 10 ms
_QUIET = 10 ** (-55 / 20)
"""Full scale is 1; below this nothing is speech, however quiet the rest."""
_ABOVE_NOISE = 10 ** (10 / 20)
"""How much louder than the noise speech is."""


def energy_probabilities(samples: Samples) -> npt.NDArray[np.float32]:
    """1 where 30 ms of sound stand out from the noise of the recording, else 0, every 10 ms.

    The noise is the level that the quietest tenth of the recording stays below. Where all of it
    is as loud, as in steady noise or a hum, nothing stands out.
    """
    level = _levels(samples)
    noise = float(np.quantile(level, 0.1)) if len(level) else 0.0
    return (level > max(_QUIET, _ABOVE_NOISE * noise)).astype(np.float32)


def _levels(samples: Samples) -> npt.NDArray[np.float32]:
    """Root mean square of 30 ms around every 10 ms (n,)."""
    n = -(-len(samples) // ENERGY_HOP)
    power = np.zeros(n + 2, np.float32)
    done = 1
    for block in blocks(samples, _BLOCK_HOPS * ENERGY_HOP):
        sums = np.add.reduceat(np.square(block), np.arange(0, len(block), ENERGY_HOP))
        power[done : done + len(sums)] = sums
        done += len(sums)
    mean: npt.NDArray[np.float32] = power[:n] + power[1 : n + 1] + power[2 : n + 2]
    levels: npt.NDArray[np.float32] = np.sqrt(mean / np.float32(_ENERGY_WIDTH))
    return levels


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


@dataclass(frozen=True)
class Joined:
    """Speech without what lies between, and the way back to the recording's times."""

    samples: Samples
    spans: tuple[Span, ...]
    pad: int = 0
    """Samples without speech at either end of a span. What ends in the first of them ended in the
    span before, and what begins in the last of them begins in the next."""

    def restore(self, seconds: float, *, is_end: bool) -> float:
        """Seconds in the recording of a time in the joined speech.

        Args:
            seconds: in the joined speech.
            is_end: whether something ends there.
        """
        position, before = round(seconds * SAMPLE_RATE), 0
        for start, end in self.spans[:-1]:
            length = end - start
            limit = before + length + (self.pad if is_end else -self.pad)
            if position < limit + int(is_end):
                return (start + min(max(0, position - before), length)) / SAMPLE_RATE
            before += length
        if not self.spans:
            return seconds
        start, end = self.spans[-1]
        return min(start + max(0, position - before), end) / SAMPLE_RATE


def join_speech(samples: Samples, spans: Sequence[Span], pad: float = 0.0) -> Joined:
    """The spans of a recording, one after the other; `pad` in seconds, see `Joined.pad`."""
    joined = Collector()
    for start, end in spans:
        for block in blocks(samples[start:end], _BLOCK_HOPS * ENERGY_HOP):
            joined.add(block)
    return Joined(joined.samples(), tuple(spans), round(pad * SAMPLE_RATE))


def chunks_of(samples: Samples, spans: Sequence[Span], longest: int) -> list[Span]:
    """Neighbouring spans as chunks of at most `longest` samples, cut where nobody speaks.

    A chunk reaches from the start of its first span to the end of its last. A span that is longer
    by itself is cut where it is quietest.
    """
    chunks: list[Span] = []
    for start, end in spans:
        if chunks and end - chunks[-1][0] <= longest:
            chunks[-1] = (chunks[-1][0], end)
        else:
            parts = cut_at_quiet(samples[start:end], longest)
            chunks += [(start + first, start + last) for first, last in parts]
    return chunks


def cut_at_quiet(samples: Samples, longest: int) -> list[Span]:
    """All of a recording in chunks of at most `longest` samples, cut where it is quietest.

    The quietest 0.2 s are looked for in the last third of what a chunk can hold.
    """
    if len(samples) <= longest:
        return [(0, len(samples))] if len(samples) else []
    level = _smooth_levels(samples)
    chunks, start = [], 0
    while len(samples) - start > longest:
        first, last = (start + 2 * longest // 3) // ENERGY_HOP, (start + longest) // ENERGY_HOP
        quietest = first + int(np.argmin(level[first : max(last, first + 1)]))
        cut = min(max(quietest * ENERGY_HOP, start + 1), start + longest)
        chunks.append((start, cut))
        start = cut
    return [*chunks, (start, len(samples))]


def equal_parts(samples: Samples, count: int) -> list[Span]:
    """All of a recording in `count` parts of about one length, cut where it is quietest.

    The quietest 0.2 s are looked for within 5 s, or a third of a part, of where a part would end.
    """
    level, size = _smooth_levels(samples), len(samples) / count
    reach = min(5 * SAMPLE_RATE, size / 3)
    cuts = [0]
    for number in range(1, count):
        first = math.ceil((number * size - reach) / ENERGY_HOP)
        last = math.floor((number * size + reach) / ENERGY_HOP)
        cuts.append((first + int(np.argmin(level[first : last + 1]))) * ENERGY_HOP)
    return list(itertools.pairwise([*cuts, len(samples)]))


def _smooth_levels(samples: Samples) -> npt.NDArray[np.float64]:
    """Loudness of 0.2 s around every 10 ms."""
    return np.convolve(_levels(samples), np.ones(_QUIET_WIDTH), mode="same")
