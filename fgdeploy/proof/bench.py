"""How fast an engine is: each in a process of its own, in turn, as two in one fight over cores."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.bundle import open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, FgdeployError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.timing import time_calls
from fgdeploy.engines import Engine, open_engine

ROUNDS = 3


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
    """One contender. peak_mib: of its process, Python and the bundle's verification included."""

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


def time_engine(engine: Engine, batches: Sequence[int]) -> dict[int, list[float]]:
    """Return the milliseconds of each call by batch size, on random frames."""
    size = engine.manifest.image_size
    frames = np.random.default_rng(0).integers(0, 256, (max(batches), size, size, 3), np.uint8)
    return {
        batch: time_calls(functools.partial(engine.run, frames[:batch]))[0] for batch in batches
    }


def compare(
    bundle: Path,
    names: Sequence[str],
    batches: Sequence[int],
    threads: int | None = None,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> list[Speed]:
    """Measure engines BACKEND:PRECISION of a bundle, in turn, `rounds` times, each in a process.

    Percentiles are over the calls of all rounds. Raises EngineError if one cannot run.
    """
    times: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    peaks = dict.fromkeys(names, 0.0)
    for round_ in range(rounds):
        for place, name in enumerate(names):
            entry = _apart(bundle, name, batches, threads)
            peaks[name] = max(peaks[name], entry["peak_mib"])
            for batch in batches:
                times[name].setdefault(batch, []).extend(entry["times"][str(batch)])
            progress(round_ * len(names) + place + 1, rounds * len(names))
    return [
        Speed(
            name,
            tuple(
                Latency(batch, *(float(np.percentile(all_, part)) for part in (50, 95)))
                for batch, all_ in times[name].items()
            ),
            peaks[name],
        )
        for name in names
    ]


def _apart(bundle: Path, name: str, batches: Sequence[int], threads: int | None) -> Any:
    wanted = json.dumps({"bundle": str(bundle), "name": name, "batches": list(batches)})
    command = [sys.executable, "-m", "fgdeploy.proof.bench", wanted, str(threads or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:] or f"exit code {done.returncode}"
        raise EngineError(f"{name} cannot be measured: {reason}; see: fgdeploy doctor")
    return json.loads(done.stdout)


def main() -> int:
    """Measure one engine, told by a JSON argument, and print the milliseconds as JSON."""
    wanted, threads = json.loads(sys.argv[1]), int(sys.argv[2]) or None
    try:
        opened = open_bundle(wanted["bundle"])
        with open_engine(opened, wanted["name"], threads=threads) as engine:
            times = time_engine(engine, wanted["batches"])
    except FgdeployError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps({"times": times, "peak_mib": machine.peak_memory_mib()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
