"""Progress of long work in text: one line that is painted over, or in a log a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_FIRST_S, _NEXT_S = 10.0, 30.0


class LogLines:
    """Say how far work is: first after 10 s, then every 30 s at most, and at its end if ever.

    say: prints a line; clock: returns seconds.
    """

    def __init__(
        self, label: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._label, self._say, self._clock = label, say, clock
        self._start = clock()
        self._due = self._start + _FIRST_S
        self._spoke = False

    def update(self, done: int, total: int) -> None:
        """Hear that `done` of `total` are done."""
        now = self._clock()
        ended = self._spoke and done >= total
        if now < self._due and not ended:
            return
        self._say(f"{self._label}: {done:,} of {total:,}{self._facts(done, total, now)}")
        self._due, self._spoke = now + _NEXT_S, not ended

    def _facts(self, done: int, total: int, now: float) -> str:
        seconds = max(now - self._start, 1e-9)
        if done >= total:
            return f", took {duration(seconds)}"
        if done == 0:
            return ""
        left = seconds / done * (total - done)
        share = f" ({done / total:.0%}), {done / seconds:.3g}/s"
        return f"{share}, about {duration(left)} left"


class Painted:
    """One line of a terminal's stderr that says how far work is."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label, self._clock = label, clock
        self._start = clock()

    def update(self, done: int, total: int) -> None:
        """Hear that `done` of `total` are done."""
        seconds = max(self._clock() - self._start, 1e-9)
        left = seconds / max(done, 1) * (total - done)
        text = f"\r{self._label} {done}/{total}  {done / seconds:.0f}/s  {left:.0f} s left "
        sys.stderr.write(text + ("\n" if done >= total else ""))
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return seconds in words: "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = max(round(seconds), 1)
    minutes, rest = divmod(whole, 60)
    hours, more = divmod(minutes, 60)
    if hours:
        return f"{hours} h {more} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
