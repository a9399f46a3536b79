"""Whether an engine is worth running by default: what its own timing says of it and its rivals.

Milliseconds of two timings cannot be compared: another machine, other threads, another load. So an
engine is judged inside the timing that measured it, by how many times as fast as fp32 it is, and
engines of several timings by these ratios.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WORTH = 1.05  # times as fast as fp32: less is no difference that would pay for fewer exact bits

Milliseconds = Mapping[str, float]  # of one call, the median, by batch size in digits


@dataclass(frozen=True)
class Contest:
    """One timing. ms: by the name BACKEND:PRECISION. threads: of one run, None for all cores."""

    ms: Mapping[str, Milliseconds]
    threads: int | None = None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Contest:
        """Read what an engine's record keeps of a timing."""
        return cls(entry["ms"], entry["threads"])

    def to_json(self) -> dict[str, Any]:
        """Return what an engine's record keeps."""
        rounded = {
            name: {batch: round(took, 3) for batch, took in each.items()}
            for name, each in self.ms.items()
        }
        return {"threads": self.threads, "ms": rounded}

    def fp32(self, backends: Iterable[str]) -> str | None:
        """Return the fastest fp32 engine in one of these backends, None if none was timed."""
        names = [f"{backend}:fp32" for backend in backends]
        timed = [name for name in names if name in self.ms]
        return min(timed, key=self._mean, default=None)

    def gain(self, name: str, rival: str) -> float:
        """Return how many times as fast as a rival an engine is, over all batch sizes."""
        return self._mean(rival) / self._mean(name)

    def words(self, name: str, rival: str) -> str:
        """Say how an engine that is not worth it compares, where it is the slowest by comparison.

        Such as "slower: 52.1 against 42.0 ms".
        """
        batch = max(self.ms[name], key=lambda size: self.ms[name][size] / self.ms[rival][size])
        own, other = self.ms[name][batch], self.ms[rival][batch]
        how = "slower" if self.gain(name, rival) < 1 else "not faster by 5 %"
        sizes = "" if batch == "1" else f" at batch {batch}"
        return f"{how}: {own:.1f} against {other:.1f} ms{sizes}"

    def _mean(self, name: str) -> float:
        """Return the geometric mean over the batch sizes."""
        return math.exp(math.fsum(map(math.log, self.ms[name].values())) / len(self.ms[name]))


def is_valid(entry: Any) -> bool:
    """Tell whether a record's entry is what `Contest.to_json` writes: one set of batch sizes."""
    if not isinstance(entry, dict) or set(entry) != {"threads", "ms"}:
        return False
    threads, ms = entry["threads"], entry["ms"]
    whole = isinstance(threads, int) and not isinstance(threads, bool) and threads > 0
    if not (threads is None or whole) or not isinstance(ms, dict) or not ms:
        return False
    return all(map(_timed, ms.values())) and len({frozenset(each) for each in ms.values()}) == 1


def _timed(each: Any) -> bool:
    return (
        isinstance(each, dict)
        and bool(each)
        and all(batch.isascii() and batch.isdigit() for batch in each)
        and all(type(took) in (int, float) and 0 < took < 1 << 53 for took in each.values())
    )
