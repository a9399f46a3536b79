"""How much of its time a loop waits for its data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from fgdeploy.core.progress import Notify

Item = TypeVar("Item")

LONG_WAIT = 0.2  # share of an epoch above which more workers are advised
LONG_EPOCH_S = 10.0  # below which nobody minds


class Waiting:
    """Times a loop over data: `share` is that of the last one, 0 to 1; None before any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = False
        self._seconds = 0.0
        self.share: float | None = None

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; the time between asking for one and having it is waiting."""
        waited, start = 0.0, self._clock()
        asked = start
        for item in items:
            waited += self._clock() - asked
            yield item
            asked = self._clock()
        end = self._clock()
        self._seconds = end - start
        self.share = (waited + end - asked) / max(self._seconds, 1e-9)

    def advise(self, workers: int, notify: Notify) -> None:
        """Tell once that more workers may help, where an epoch waited long for its photos."""
        if self._told or self.share is None or self._seconds < LONG_EPOCH_S:
            return
        if self.share <= LONG_WAIT:
            return
        self._told = True
        notify(
            f"{self.share:.0%} of the epoch was spent waiting for photos; more --workers "
            f"({workers} now) prepare them meanwhile, where there are cores to spare"
        )
