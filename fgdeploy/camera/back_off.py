"""How long to wait before the next attempt: longer each time, and never all at once."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown


@dataclass(frozen=True)
class BackOff:
    """Seconds before an attempt: `first` times `factor` for each one before, at most `most`.

    jitter: the share of it that is left to chance, 0..1, so that many readers of one camera that
    comes back do not all knock at once.
    """

    first: float = 0.5
    most: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.most < math.inf):
            raise UsageError(
                f"expected a first wait above 0 s and up to the longest, got {shown(self.first)} "
                f"and {shown(self.most)}"
            )
        if not (1 <= self.factor < math.inf and 0 <= self.jitter <= 1):
            raise UsageError(
                f"expected a factor from 1 and a jitter in 0..1, got {shown(self.factor)} and "
                f"{shown(self.jitter)}"
            )

    def seconds(self, attempts: int, chance: random.Random) -> float:
        """Return how long to wait after so many attempts that failed, from 0."""
        steps = math.log(self.most / self.first, self.factor) if self.factor > 1 else 0.0
        wait = self.most if 0 < steps <= attempts else self.first * self.factor**attempts
        return float(min(wait, self.most) * (1 - self.jitter * chance.random()))
