"""Schedules worth a look: all positions of one to three stages, keep counts at plateaus' edges.

Pure numbers: what a schedule takes is read off the staircase, as if each stage pruned inside its
block behind attention; the network's own rows correct that for the few that go on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fgdeploy.models.reduce.stages import Stage
from fgdeploy.tuning.staircase import Stair, Staircase

_MOST_STAGES = 3


@dataclass(frozen=True)
class Candidate:
    """A schedule, the milliseconds that the staircase promises, and what it may cost in quality."""

    stages: tuple[Stage, ...]
    predicted_ms: float
    prior: float

    def __str__(self) -> str:
        return ",".join(map(str, self.stages)) or "dense"


def prior(stages: Sequence[Stage], depth: int, patches: int) -> float:
    """Return how much a schedule is expected to cost, 0 for the dense model; it only ranks.

    Each stage costs the log of the share that it drops, times the part of the network that then
    works without it: dropping half at a third of the depth costs as much as a quarter at two.
    """
    counts = [patches, *(stage.keep for stage in stages)]
    return sum(
        math.log(before / stage.keep) * (1 - stage.block / depth)
        for before, stage in zip(counts, stages, strict=False)
    )


def estimate(stair: Stair, stages: Sequence[Stage], depth: int, patches: int, extra: int) -> float:
    """Return the milliseconds of all blocks; extra: rows beside the patches that stay.

    The last block computes one query alone, as in `Staircase.blocks_ms`.
    """
    total, rows, begun = 0.0, patches + extra, 0
    for stage in stages:
        total += (stage.block - begun) * stair.attend(rows)
        total += (stage.block - begun - (begun == 0)) * stair.feed(rows)
        rows, begun = stage.keep + extra, stage.block
    total += (depth - begun - 1 + (1 + 2 * rows) / (3 * rows)) * stair.attend(rows)
    return total + (depth - begun - (begun == 0)) * stair.feed(rows) + stair.feed(1)


def promising(
    staircase: Staircase, depth: int, patches: int, extra: int, limit_ms: float
) -> list[Candidate]:
    """Return for each choice of blocks the best schedule within a limit, the best first.

    extra: rows beside the patches that stay, such as CLS. Best is the least prior. Where no
    schedule keeps to the limit, the list is empty.
    """
    best: dict[tuple[int, ...], Candidate] = {}
    for one in _all(staircase, depth, patches, extra):
        blocks = tuple(stage.block for stage in one.stages)
        held = best.get(blocks)
        if one.predicted_ms <= limit_ms and (held is None or one.prior < held.prior):
            best[blocks] = one
    return sorted(best.values(), key=lambda one: (one.prior, one.predicted_ms))


def fastest(staircase: Staircase, depth: int, patches: int, extra: int) -> Candidate:
    """Return the schedule that the staircase promises to be the fastest of all."""
    return min(_all(staircase, depth, patches, extra), key=lambda one: one.predicted_ms)


def _all(staircase: Staircase, depth: int, patches: int, extra: int) -> Iterator[Candidate]:
    stair = staircase.stair
    keeps = [edge - extra for edge in stair.edges() if 1 <= edge - extra < patches] or [1]
    for count in range(1, _MOST_STAGES + 1):
        for blocks in itertools.combinations(range(1, depth), count):
            for chosen in itertools.combinations(sorted(keeps, reverse=True), count):
                stages = tuple(map(Stage, blocks, chosen))
                took = estimate(stair, stages, depth, patches, extra)
                took += staircase.fixed_ms + count * staircase.step_ms
                yield Candidate(stages, took, prior(stages, depth, patches))
