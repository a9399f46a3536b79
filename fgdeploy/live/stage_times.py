"""How long each stage of a frame's way takes: percentiles of the last frames, in fixed memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fgdeploy.core.errors import UsageError

_KEPT = 2048  # of each stage; at 30 frames/s the last minute
_SHARES = (50, 95, 99)


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage over the last frames. count and total: of all frames so far."""

    count: int
    total: float
    p50: float
    p95: float
    p99: float


class StageTimes:
    """Times by stage; any thread may add some. kept: how many of each the percentiles are of."""

    def __init__(self, kept: int = _KEPT) -> None:
        if kept < 1:
            raise UsageError(f"expected to keep at least one time, got {kept}; give 1")
        self._kept = kept
        self._lock = threading.Lock()
        self._rings: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        self._counts: dict[str, int] = {}
        self._totals: dict[str, float] = {}

    def add(self, seconds: Mapping[str, float]) -> None:
        """Note how long the stages of one frame took."""
        with self._lock:
            for stage, taken in seconds.items():
                if stage not in self._rings:
                    self._rings[stage] = np.zeros(self._kept)
                    self._counts[stage], self._totals[stage] = 0, 0.0
                self._rings[stage][self._counts[stage] % self._kept] = taken
                self._counts[stage] += 1
                self._totals[stage] += taken

    def summary(self) -> dict[str, StageTime]:
        """Return the times of each stage, in the order in which stages came first."""
        with self._lock:
            held = {
                stage: (count, self._totals[stage], self._rings[stage][:count].copy())
                for stage, count in self._counts.items()
            }
        return {
            stage: StageTime(count, total, *map(float, np.percentile(ring, _SHARES)))
            for stage, (count, total, ring) in held.items()
        }
