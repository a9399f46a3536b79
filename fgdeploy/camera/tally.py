"""What became of the frames of a camera, counted so that none is missing."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class CameraCounters:
    """Frames since the start: captured = processed + dropped + broken + skipped + under way.

    processed: given out as results; dropped: newer ones came first, or the camera was closed;
    broken: damaged, never hashed; skipped: `select` left them out. waiting: frames that wait for
    the engine. reconnects: how often the source was opened again; rebuilds: the engine.
    """

    captured: int
    processed: int
    dropped: int
    broken: int
    skipped: int
    waiting: int
    reconnects: int
    rebuilds: int

    @property
    def under_way(self) -> int:
        """How many frames are on their way from the capture to a result."""
        return self.captured - self.processed - self.dropped - self.broken - self.skipped


class Tally:
    """Counts by name; any thread may add to them and read them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> int:
        """Count one more, and return how many there are now."""
        with self._lock:
            self._counts[name] += 1
            return self._counts[name]

    def __getitem__(self, name: str) -> int:
        return self._counts[name]
