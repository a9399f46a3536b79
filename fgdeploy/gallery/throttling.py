"""Work that leaves time to others: it rests after each step, by its share of the time."""

from __future__ import annotations

import time
from collections.abc import Callable

from fgdeploy.core.errors import UsageError


class Throttle:
    """Rests so that work takes `share` of the time, above 0 and up to 1 (no rest).

    clock, sleep: seconds, as `time.monotonic` and `time.sleep`. Raises UsageError.
    """

    def __init__(
        self,
        share: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"expected a share of the time above 0 and up to 1, got {share}")
        self._share, self._clock, self._sleep = share, clock, sleep
        self._since = clock()

    def begin(self) -> None:
        """Begin a step of work now; what came before was none."""
        self._since = self._clock()

    def rest(self) -> None:
        """Rest from the work since the last rest or beginning, then begin the next step."""
        worked = max(0.0, self._clock() - self._since)
        if (pause := worked * (1 / self._share - 1)) > 0:
            self._sleep(pause)
        self.begin()
