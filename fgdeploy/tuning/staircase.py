"""The latency staircase of a device: milliseconds of a block against its token rows, by batch.

Kernels work in tiles, so time rises in steps: a schedule should keep as many tokens as the next
step allows. The times are of two parts of a block, as pruning acts between them: `attend` (norm, q,
k, v, attention) and `feed` (projection, MLP).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdeploy.bundle import BlockRows
from fgdeploy.core.errors import UsageError

# Two row counts whose times differ by less lie on one plateau: timings repeat no better.
_SAME = 0.02


@dataclass(frozen=True)
class Stair:
    """One batch size: rows, rising, and the milliseconds of one block's two parts at each."""

    rows: tuple[int, ...]
    attend_ms: tuple[float, ...]
    feed_ms: tuple[float, ...]

    @classmethod
    def smoothed(
        cls, rows: Sequence[int], attend_ms: Sequence[float], feed_ms: Sequence[float]
    ) -> Stair:
        """Return measured times made to rise with the rows: noise fell, work did not.

        Each part is the nearest rising sequence in least squares (pool adjacent violators).
        """
        return cls(tuple(rows), tuple(rising(attend_ms)), tuple(rising(feed_ms)))

    def attend(self, rows: float) -> float:
        """Return the milliseconds of `attend` at any number of rows."""
        return self._at(self.attend_ms, rows)

    def feed(self, rows: float) -> float:
        """Return the milliseconds of `feed` at any number of rows."""
        return self._at(self.feed_ms, rows)

    def _at(self, times: Sequence[float], rows: float) -> float:
        """Interpolate; beyond the largest, go on with a + b n + c n^2, as a block's work grows."""
        if rows <= self.rows[-1]:
            return float(np.interp(rows, self.rows, times))
        known = np.array(self.rows, float)
        terms = np.stack([np.ones_like(known), known, known**2], axis=1)
        fit = np.maximum(np.linalg.lstsq(terms, np.array(times), rcond=None)[0], 0)
        last = float(fit @ [1, known[-1], known[-1] ** 2])
        grown = float(fit @ [1, rows, rows**2]) / last if last > 0 else rows / known[-1]
        return times[-1] * grown

    def block(self, rows: float) -> float:
        """Return the milliseconds of a whole block."""
        return self.attend(rows) + self.feed(rows)

    def edges(self) -> tuple[int, ...]:
        """Return the row counts at the right ends of plateaus: one row more would cost."""
        total = [self.block(rows) for rows in self.rows]
        ends = [
            rows
            for rows, now, following in zip(self.rows, total, total[1:], strict=False)
            if following > now * (1 + _SAME)
        ]
        return (*ends, self.rows[-1])

    def to_json(self) -> dict[str, list[float]]:
        """Return the table, milliseconds with four digits behind the point."""
        return {
            "rows": list(self.rows),
            "attend_ms": [round(value, 4) for value in self.attend_ms],
            "feed_ms": [round(value, 4) for value in self.feed_ms],
        }


@dataclass(frozen=True)
class Staircase:
    """The stairs of a device by batch size, in one engine BACKEND:PRECISION.

    fixed_ms: what a dense call takes beside its blocks, at `batch`; step_ms: what one stage costs
    beside them (score, selection, gather), 0 before it is known.
    """

    engine: str
    batch: int
    stairs: Mapping[int, Stair]
    fixed_ms: float = 0.0
    step_ms: float = 0.0

    @property
    def stair(self) -> Stair:
        """Return that of the batch that is tuned for."""
        return self.stairs[self.batch]

    def blocks_ms(self, runs: Sequence[BlockRows], batch: int | None = None) -> float:
        """Return the milliseconds of all runs of blocks, in one call of `batch` frames."""
        stair = self.stairs[self.batch if batch is None else batch]
        return sum(_run_ms(stair, run) for run in runs)

    def predict(self, runs: Sequence[BlockRows], stages: int) -> float:
        """Return the milliseconds of a call with these runs of blocks and so many stages."""
        return self.fixed_ms + self.blocks_ms(runs) + stages * self.step_ms

    def anchored(self, dense: Sequence[BlockRows], dense_ms: float) -> Staircase:
        """Return it with the fixed cost that a measured dense call leaves beside its blocks.

        Where the blocks alone should take longer than the whole call, all stairs are scaled to it.
        """
        blocks = self.blocks_ms(dense)
        if blocks <= dense_ms:
            return dataclasses.replace(self, fixed_ms=dense_ms - blocks)
        factor = dense_ms / blocks
        scaled = {
            batch: Stair(
                one.rows,
                tuple(factor * value for value in one.attend_ms),
                tuple(factor * value for value in one.feed_ms),
            )
            for batch, one in self.stairs.items()
        }
        return dataclasses.replace(self, stairs=scaled, fixed_ms=0.0)

    def with_step(self, runs: Sequence[BlockRows], stages: int, measured_ms: float) -> Staircase:
        """Return it with the cost of a stage that a measured pruned call shows, at least 0."""
        if not stages:
            return self
        beside = measured_ms - self.fixed_ms - self.blocks_ms(runs)
        return dataclasses.replace(self, step_ms=max(0.0, beside / stages))

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON-ready values."""
        return {
            "engine": self.engine,
            "batch": self.batch,
            "fixed_ms": round(self.fixed_ms, 4),
            "step_ms": round(self.step_ms, 4),
            "stairs": {str(batch): stair.to_json() for batch, stair in self.stairs.items()},
        }


def _run_ms(stair: Stair, run: BlockRows) -> float:
    """Return a run's milliseconds; few queries take their share of the products of `attend`.

    Of its MACs at width D, q, k, v are 3 n D^2 and attention 2 n^2 D; the share is by rows alone.
    """
    share = (run.query + 2 * run.keyval) / (3 * run.keyval)
    return stair.attend(run.keyval) * share + stair.feed(max(run.proj, run.mlp))


def rising(values: Sequence[float]) -> list[float]:
    """Return the rising sequence nearest to `values` in least squares."""
    groups: list[tuple[float, int]] = []
    for value in values:
        groups.append((float(value), 1))
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            (one, count), (two, more) = groups[-2:]
            groups[-2:] = [((one * count + two * more) / (count + more), count + more)]
    return [mean for mean, count in groups for _ in range(count)]


def row_counts(rows: int, fewest: int = 8, most: int = 16) -> tuple[int, ...]:
    """Return which row counts to measure: 8, then multiples of a tile of 16 (32, 64, ...), and all.

    rows: those of the dense model; most: how many counts at most, about. Raises UsageError for a
    model of so few rows that nothing can be pruned.
    """
    if rows <= fewest:
        raise UsageError(
            f"the model has {rows} token rows, too few to prune; take a larger --image-size"
        )
    step = 16
    while rows // step > most:
        step *= 2
    return tuple(sorted({fewest, *range(step, rows, step), rows}))
