"""How long calls take: the one loop that everything here is timed by."""

from __future__ import annotations

import time
from collections.abc import Callable

_WARM_UP, _LEAST, _SECONDS = 3, 10, 1.0


def time_calls(
    *calls: Callable[[], object],
    seconds: float = _SECONDS,
    least: int = _LEAST,
    warm_up: int = _WARM_UP,
) -> list[list[float]]:
    """Return for each of some functions the milliseconds of its calls; they take turns.

    Each is called at least `least` times, and all until `seconds` are over, after `warm_up` calls
    that do not count.
    """
    for _ in range(warm_up):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < least or time.perf_counter() < end:
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(1e3 * (time.perf_counter() - start))
        rounds += 1
    return times
