"""Which of two ways is faster on this machine: measured on the work itself, not guessed.

CPUs differ: where counting bits is cheap the plain scan wins, elsewhere bit planes do, and from how
many queries on varies with both.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

_AGAIN = 64  # after so many pieces of work the slower way is tried once more


@dataclass
class _Times:
    """What is known of one kind of work: for each way, how often it was taken, its least time."""

    taken: list[int] = field(default_factory=lambda: [0, 0])
    least: list[float] = field(default_factory=lambda: [float("inf")] * 2)
    since: int = 0


class Pace:
    """Chooses the first (False) or the second way (True) for each kind of work.

    Both answer alike; the second is taken until both were timed. Usable from threads: what one of
    them overlooks only costs time.
    """

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Times] = {}

    def choose(self, kind: Hashable, timed: bool) -> bool:
        """Return which way to take. timed: whether `note` will be told how long it took."""
        times = self._kinds.setdefault(kind, _Times())
        if timed:
            for way in (True, False):
                if times.taken[way] < 2:
                    return way
            times.since += 1
        faster = times.least[True] <= times.least[False]
        return faster if times.since % _AGAIN or not timed else not faster

    def note(self, kind: Hashable, way: bool, seconds: float) -> None:
        """Note how long a unit of the work took. A way's first time is left out: it may compile."""
        times = self._kinds.setdefault(kind, _Times())
        times.taken[way] += 1
        if times.taken[way] > 1:
            times.least[way] = min(times.least[way], seconds)
