"""How fast contenders are: each in a process of its own, in turn; two in one fight over cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.core.errors import EngineError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.proof.contenders import Contender, Turn, measure_apart

ROUNDS, SECONDS = 3, 1.0


@dataclass(frozen=True)
class Calls:
    """All calls of all rounds with `batch` images, in ms: none is left out."""

    batch: int
    ms: tuple[float, ...]

    def percentile(self, part: float) -> float:
        """Return a percentile in ms, between neighbours by proportion."""
        return float(np.percentile(self.ms, part))

    @property
    def images_per_s(self) -> float:
        """Return the images per second at the median."""
        return 1e3 * self.batch / self.percentile(50)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values, times in ms."""
        parts = {f"p{part}_ms": round(self.percentile(part), 4) for part in (50, 90, 95, 99)}
        return {
            "batch": self.batch,
            "calls": len(self.ms),
            "min_ms": round(min(self.ms), 4),
            "mean_ms": round(float(np.mean(self.ms)), 4),
            **parts,
            "max_ms": round(max(self.ms), 4),
            "images_per_s": round(self.images_per_s, 2),
        }


@dataclass(frozen=True)
class Measured:
    """What a contender reached. first_s: of the first call by batch size, at its slowest."""

    contender: Contender
    calls: tuple[Calls, ...]
    peak_mib: float
    first_s: Mapping[int, float]
    runs: str

    def at(self, batch: int) -> Calls | None:
        """Return the calls with a batch size, None where it did not run."""
        return next((one for one in self.calls if one.batch == batch), None)


@dataclass(frozen=True)
class Race:
    """What was measured, and why the rest was not, by name (`NAME, batch 32`)."""

    measured: tuple[Measured, ...]
    failed: Mapping[str, str]


def race(
    contenders: Sequence[Contender],
    threads: int | None = None,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    progress: Progress = no_progress,
) -> Race:
    """Measure contenders in turn, `rounds` times, each time in a process of its own.

    seconds: for each batch size in each round, ten calls at least. One that fails in any round is
    left out of the others, with the reason.
    """
    samples: dict[str, list[Turn]] = {one.name: [] for one in contenders}
    failed: dict[str, str] = {}
    for round_ in range(rounds):
        for place, contender in enumerate(contenders):
            if contender.name not in failed:
                try:
                    samples[contender.name].append(measure_apart(contender, threads, seconds))
                except EngineError as error:
                    failed[contender.name] = str(error)
            progress(round_ * len(contenders) + place + 1, rounds * len(contenders))
    measured = []
    for contender in contenders:
        if contender.name in failed:
            continue
        found = _joined(contender, samples[contender.name])
        lost = {batch: why for one in samples[contender.name] for batch, why in one.failed.items()}
        failed |= {f"{contender.name}, batch {batch}": why for batch, why in lost.items()}
        if found.calls:
            measured.append(found)
    return Race(tuple(measured), failed)


def _joined(contender: Contender, samples: Sequence[Turn]) -> Measured:
    kept = [batch for batch in contender.batches if all(batch in one.ms for one in samples)]
    return Measured(
        contender,
        tuple(Calls(batch, tuple(ms for one in samples for ms in one.ms[batch])) for batch in kept),
        max(one.peak_mib for one in samples),
        {batch: max(one.first_s[batch] for one in samples) for batch in kept},
        samples[0].runs,
    )


@dataclass(frozen=True)
class Latency:
    """Of one call with `batch` frames: median and 95th percentile in ms, and images per second."""

    batch: int
    p50_ms: float
    p95_ms: float

    @property
    def images_per_s(self) -> float:
        """Return the images per second at the median."""
        return 1e3 * self.batch / self.p50_ms


@dataclass(frozen=True)
class Speed:
    """One engine of a bundle. peak_mib: of its process, Python and verification included."""

    name: str
    latencies: tuple[Latency, ...]
    peak_mib: float

    def at(self, batch: int) -> Latency:
        """Return the latency of a batch size."""
        return next(one for one in self.latencies if one.batch == batch)

    def to_json(self) -> dict[str, Any]:
        """Return what `engine.json` keeps."""
        entry: dict[str, Any] = {
            str(one.batch): {
                "p50_ms": round(one.p50_ms, 3),
                "p95_ms": round(one.p95_ms, 3),
                "images_per_s": round(one.images_per_s, 1),
            }
            for one in self.latencies
        }
        return {**entry, "peak_mib": round(self.peak_mib, 1)}


def compare(
    bundle: Path,
    names: Sequence[str],
    batches: Sequence[int],
    threads: int | None = None,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> list[Speed]:
    """Measure engines BACKEND:PRECISION of a bundle, as `race` does, at all batch sizes.

    Raises EngineError if one cannot run.
    """
    sizes = tuple(batches)
    contenders = [Contender(name, "bundle", str(bundle), sizes, name) for name in names]
    found = race(contenders, threads, rounds, progress=progress)
    for name, why in found.failed.items():
        raise EngineError(f"{name} cannot be measured: {why}; see: fgdeploy doctor")
    return [
        Speed(
            one.contender.name,
            tuple(Latency(c.batch, c.percentile(50), c.percentile(95)) for c in one.calls),
            one.peak_mib,
        )
        for one in found.measured
    ]
