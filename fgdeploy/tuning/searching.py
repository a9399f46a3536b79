"""Successive halving: many schedules on few photos, the better half on twice as many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fgdeploy.core.progress import Progress, no_progress

_One = TypeVar("_One")
_FEWEST = 64  # photos of a round: fewer say little


@dataclass(frozen=True)
class Round:
    """How many of the schedules are tried, on how many photos."""

    tried: int
    photos: int


def rounds(photos: int, best: int) -> tuple[Round, ...]:
    """Return the rounds that end with `best` schedules on all photos; each costs about the same."""
    found = [Round(best, photos)]
    while len(found) < 3 and found[0].photos // 2 >= _FEWEST:
        found.insert(0, Round(2 * found[0].tried, found[0].photos // 2))
    return tuple(found)


def halve(
    candidates: Sequence[_One],
    plan: Sequence[Round],
    evaluate: Callable[[_One, int], float],
    progress: Progress = no_progress,
) -> list[tuple[_One, float]]:
    """Return those of the last round with their scores on all photos, the best first.

    candidates: the most promising first; evaluate: (candidate, photos) to its score, more is
    better.
    """
    left = list(candidates)
    total = sum(min(len(left), one.tried) for one in plan)
    done = 0
    scored: list[tuple[_One, float]] = []
    for one in plan:
        scored = []
        for candidate in left[: one.tried]:
            scored.append((candidate, evaluate(candidate, one.photos)))
            done += 1
            progress(done, total)
        scored.sort(key=lambda pair: -pair[1])
        left = [candidate for candidate, _ in scored]
    return scored
