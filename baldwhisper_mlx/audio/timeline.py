"""The clock of a recording: decoded pieces at the times that their container gives them.

Where a piece begins later than the last one ended, nothing was recorded, or damage has taken it;
silence fills the gap, so that all times after it are right. Times that cannot be true are ignored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TOLERANCE = 0.1
"""Seconds by which times may differ from the samples' own: containers round them and count an
encoder's delay differently. FFmpeg's `aresample` has the same limit (`min_hard_comp`)."""
_TOLERANCE_AFTER_DAMAGE = 0.01
_SUSPICIOUS = 1.0
"""Seconds of a jump that is believed only if the next piece confirms it."""
_BEYOND_END = 1.0
"""Seconds after the stated end within which times are believed."""

Frames = npt.NDArray[np.float32]
"""Samples (channels, n), full scale at 1.0."""


@dataclass(frozen=True)
class Piece:
    """What was decoded at once."""

    samples: Frames
    rate: int
    start: float | None
    """Seconds from the start of the recording, by its container; None if that is unknown."""
    is_after_damage: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        return int(self.samples.shape[1]) / self.rate


@dataclass(frozen=True)
class Silence:
    """Where nothing was decoded."""

    seconds: float


class Timeline:
    """Puts pieces at their times; `gaps` has the start and the seconds of what was missing.

    Args:
        stated: seconds that the container says the recording has; None if it says nothing.
    """

    def __init__(self, stated: float | None = None) -> None:
        self.position = 0.0
        """Seconds so far, silence included."""
        self.gaps: list[tuple[float, float]] = []
        self._stated = stated
        self._held: Piece | None = None
        # A clock that starts again at 0, as in joined recordings, is shifted from there on. The
        # last shifts are kept, because after a damaged time the old one is right again.
        self._shifts: deque[float] = deque([0.0], maxlen=8)

    def add(self, piece: Piece) -> Iterator[Piece | Silence]:
        """A piece, with silence before it if it comes later than expected; or the one before."""
        if self._held is not None:
            yield from self._resolve(piece)
        if abs(self._lead(piece)) > _SUSPICIOUS:
            self._held = piece
        else:
            yield from self._place(piece)

    def finish(self) -> Iterator[Piece | Silence]:
        """What is held back."""
        if self._held is not None:
            held, self._held = self._held, None
            yield from self._place(held)

    def _resolve(self, following: Piece) -> Iterator[Piece | Silence]:
        """Places the held piece: by its own time, unless the next piece contradicts that."""
        held, self._held = self._held, None
        assert held is not None
        if following.start is not None and held.start is not None:
            expected = held.start + held.seconds
            if following.start < expected - TOLERANCE:
                held = Piece(held.samples, held.rate, None)
        yield from self._place(held)

    def _lead(self, piece: Piece) -> float:
        """Seconds by which a piece begins later than the last one ended; 0 if it cannot be so."""
        if piece.start is None:
            return 0.0
        leads = [piece.start + shift - self.position for shift in self._shifts]
        nearest = min(leads, key=abs)
        lead = nearest if abs(nearest) <= TOLERANCE else leads[-1]
        if self._stated is not None and self.position + lead > self._stated + _BEYOND_END:
            return 0.0
        return lead

    def _place(self, piece: Piece) -> Iterator[Piece | Silence]:
        lead = self._lead(piece)
        if lead < -TOLERANCE:  # the clock has started again
            assert piece.start is not None
            self._shifts.append(self.position - piece.start)
        elif lead > (_TOLERANCE_AFTER_DAMAGE if piece.is_after_damage else TOLERANCE):
            if self.position > 0:
                self.gaps.append((self.position, lead))
            self.position += lead
            yield Silence(lead)
        self.position += piece.seconds
        yield piece
