"""What can be timed: engines of bundles, ONNX files alone, timm, and products of matrices."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import FgdeployError
from fgdeploy.core.timing import time_calls
from fgdeploy.engines import open_engine
from fgdeploy.proof.own_process import answer, run_apart

Call = Callable[[], object]
Prepare = Callable[[int], Call]  # from a batch size to a call with so many images


@dataclass(frozen=True)
class Contender:
    """One thing to time, at some batch sizes.

    name: as it is shown; kind: of `KINDS`; source: a bundle, an ONNX file, or a timm backbone;
    engine: BACKEND:PRECISION; size: side of an image in pixels, for timm; device: cpu or cuda, for
    timm; scratch: a folder that its compiler may fill; frames: a .npy of uint8 (N, S, S, 3) to run,
    None for random ones; macs: multiply-accumulates per image, None where nobody counted; notes:
    what to say of it.
    """

    name: str
    kind: str
    source: str
    batches: tuple[int, ...]
    engine: str = ""
    size: int = 0
    device: str = "cpu"
    scratch: str = ""
    frames: str | None = None
    macs: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """What one process measured of a contender.

    ms: of each call by batch size; failed: why a batch size did not run; first_s: of the first call
    by batch size, compilation included; runs: what ran, in words; peak_mib: of the process, Python
    and the verification of the bundle included.
    """

    ms: dict[int, list[float]]
    failed: dict[int, str]
    first_s: dict[int, float]
    peak_mib: float
    runs: str


def measure_apart(contender: Contender, threads: int | None, seconds: float) -> Turn:
    """Time a contender in a process of its own, each batch size for `seconds` and ten calls.

    Raises EngineError with the reason where no batch size could run.
    """
    wanted = {**dataclasses.asdict(contender), "threads": threads, "seconds": seconds}
    found = run_apart(__name__, wanted, threads or machine.cores())
    for name in ("ms", "failed", "first_s"):
        found[name] = {int(batch): value for batch, value in found[name].items()}
    return Turn(**found)


def measure(contender: Contender, threads: int | None, seconds: float) -> Turn:
    """Time a contender in this process. Raises what opening it raises."""
    ms: dict[int, list[float]] = {}
    failed: dict[int, str] = {}
    first: dict[int, float] = {}
    with KINDS[contender.kind](contender, threads) as (prepare, runs):
        for batch in contender.batches:
            try:
                call = prepare(batch)
                start = time.perf_counter()
                call()
                first[batch] = time.perf_counter() - start
                (ms[batch],) = time_calls(call, seconds=seconds)
            except FgdeployError as error:
                failed[batch] = str(error)
    return Turn(ms, failed, first, machine.peak_memory_mib(), runs)


Opened = contextlib.AbstractContextManager[tuple[Prepare, str]]


@contextlib.contextmanager
def _bundle(contender: Contender, threads: int | None) -> Iterator[tuple[Prepare, str]]:
    opened = open_bundle(contender.source)
    with open_engine(opened, contender.engine, threads=threads) as engine:
        frames = _frames(contender, engine.manifest.image_size)
        yield lambda batch: functools.partial(engine.run, frames(batch)), engine.describe()


def _frames(contender: Contender, size: int) -> Callable[[int], npt.NDArray[np.uint8]]:
    """Return what gives so many frames: real ones, again and again if there are too few."""
    if contender.frames is not None:
        held = np.load(contender.frames)
        return lambda batch: np.ascontiguousarray(np.resize(held, (batch, *held.shape[1:])))
    chooser = np.random.default_rng(0)
    return lambda batch: chooser.integers(0, 256, (batch, size, size, 3), np.uint8)


@contextlib.contextmanager
def _graph(contender: Contender, threads: int | None) -> Iterator[tuple[Prepare, str]]:
    from fgdeploy.proof import bare_graph

    yield bare_graph.opened(contender.source, contender.engine, threads), contender.engine


@contextlib.contextmanager
def _timm(contender: Contender, threads: int | None) -> Iterator[tuple[Prepare, str]]:
    from fgdeploy.proof import plain_timm

    compiled = contender.engine == plain_timm.COMPILED
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = contender.scratch  # so that each run compiles once
    name, size, device = contender.source, contender.size, contender.device
    yield plain_timm.opened(name, size, threads, device, compiled)


@contextlib.contextmanager
def _product(contender: Contender, threads: int | None) -> Iterator[tuple[Prepare, str]]:
    from fgdeploy.proof import machine_peaks

    yield machine_peaks.LIBRARIES[contender.engine](threads or machine.cores()), contender.engine


KINDS: dict[str, Callable[[Contender, int | None], Opened]] = {
    "bundle": _bundle,
    "graph": _graph,
    "timm": _timm,
    "product": _product,
}


def _answer(wanted: dict[str, Any]) -> dict[str, Any]:
    threads, seconds = wanted.pop("threads"), wanted.pop("seconds")
    return dataclasses.asdict(measure(Contender(**wanted), threads, seconds))


if __name__ == "__main__":
    sys.exit(answer(_answer))
