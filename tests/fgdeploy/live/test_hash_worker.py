"""The thread that owns the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.engines import Engine, Outputs
from fgdeploy.hasher import Hasher, load
from fgdeploy.live.hash_worker import Answered, Busy, HashWorker
from tests.checks import refused

WAIT = 30.0


class Faulty(Engine):
    """An engine that waits for `gate`, and fails as often as `faults` says."""

    backend, precision = "faulty", "fp32"

    def __init__(self, engine: Engine, faults: list[int]) -> None:
        super().__init__(engine.manifest)
        self._engine, self._faults = engine, faults
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.sizes: list[int] = []

    def describe(self) -> str:
        return "faulty fp32"

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        self.begun.set()
        assert self.gate.wait(WAIT)
        self.sizes.append(len(frames))
        if self._faults[0] > 0:
            self._faults[0] -= 1
            raise RuntimeError("device lost")
        return self._engine.run(frames)

    def _free(self) -> None:
        pass


@pytest.fixture
def plain(toy_bundle: Path) -> Iterator[Hasher]:
    with load(toy_bundle, threads=1, batch=4) as hasher:
        yield hasher


@pytest.fixture
def frames(plain: Hasher) -> npt.NDArray[np.uint8]:
    size = plain.manifest.image_size
    return np.random.default_rng(0).integers(0, 256, (9, size, size, 3), np.uint8)


@pytest.fixture
def faulty(plain: Hasher) -> Callable[[int], Hasher]:
    """Makes hashers whose engine fails some times, also when it was opened anew."""

    def make(faults: int) -> Hasher:
        left = [faults]

        def fresh() -> Hasher:
            hasher = Hasher(plain.bundle, Faulty(plain.engine, left), 4)
            hasher.reopened = fresh  # type: ignore[method-assign]
            return hasher

        return fresh()

    return make


def results(futures: list[Future[Answered]]) -> npt.NDArray[np.uint8]:
    return np.concatenate([future.result(WAIT).outputs.code for future in futures])


def test_codes_are_those_of_the_hasher(plain: Hasher, frames: npt.NDArray[np.uint8]) -> None:
    with HashWorker(plain) as worker:
        found = [worker.submit(frame) for frame in frames]
        assert np.array_equal(results(found), plain.engine.run(frames).code)
        first = found[0].result()
    assert first.queued >= 0 and first.inference > 0 and worker.answered == 9


def test_what_waits_runs_together_and_no_more_than_may_waits(
    faulty: Callable[[int], Hasher], frames: npt.NDArray[np.uint8]
) -> None:
    hasher = faulty(0)
    engine: Any = hasher.engine
    engine.gate.clear()
    with HashWorker(hasher, waiting=6) as worker:
        found = [worker.submit(frames[0])]
        assert engine.begun.wait(WAIT)
        found += [worker.submit(frame) for frame in frames[1:7]]
        assert len(worker) == 6
        with refused(Busy, "6 frames wait for the engine; send it again later"):
            worker.submit(frames[7])
        engine.gate.set()
        results(found)
    assert engine.sizes == [1, 4, 2] and worker.refused == 1


def test_it_takes_no_more_than_the_engine_runs_as_one(
    plain: Hasher, frames: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Faulty(plain.engine, [0])
    monkeypatch.setattr(engine, "at_once", lambda count: min(count, 2))
    with HashWorker(Hasher(plain.bundle, engine, 4)) as worker:
        engine.gate.clear()
        waiting = [worker.submit(frames[0])]
        assert engine.begun.wait(WAIT)
        waiting += [worker.submit(frame) for frame in frames[1:6]]
        engine.gate.set()
        together = [future.result(WAIT).together for future in waiting]
    assert together == [1, 2, 2, 2, 2, 1]


def test_its_progress_stands_still_only_while_there_is_work(
    faulty: Callable[[int], Hasher], frames: npt.NDArray[np.uint8]
) -> None:
    hasher = faulty(0)
    engine: Any = hasher.engine
    engine.gate.clear()
    with HashWorker(hasher) as worker:
        assert worker.progress() is None
        first = worker.submit(frames[0])
        assert engine.begun.wait(WAIT)
        assert worker.progress() == 0
        engine.gate.set()
        first.result(WAIT)
        assert worker.progress() in (1, None)


def test_an_error_opens_the_engine_anew_once(
    faulty: Callable[[int], Hasher],
    plain: Hasher,
    frames: npt.NDArray[np.uint8],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with HashWorker(faulty(1)) as worker:
        found = worker.submit(frames[0])
        assert np.array_equal(results([found]), plain.engine.run(frames[:1]).code)
        assert worker.rebuilt == 1 and worker.failed is None
    assert 'engine_failed engine="faulty fp32"' in caplog.text


def test_a_second_error_stops_it_and_says_so_to_all(
    faulty: Callable[[int], Hasher], frames: npt.NDArray[np.uint8]
) -> None:
    with HashWorker(faulty(2)) as worker:
        found = worker.submit(frames[0])
        with refused(EngineError, "faulty fp32 failed again after it was opened anew"):
            found.result(WAIT)
        with refused(EngineError, "device lost"):
            worker.submit(frames[0])
        assert worker.failed is not None


def test_closing_gives_up_what_waits(
    faulty: Callable[[int], Hasher], frames: npt.NDArray[np.uint8]
) -> None:
    hasher = faulty(0)
    engine: Any = hasher.engine
    engine.gate.clear()
    worker = HashWorker(hasher)
    runs = worker.submit(frames[0])
    assert engine.begun.wait(WAIT)
    waits = worker.submit(frames[1])
    closing = threading.Thread(target=worker.close)
    closing.start()
    engine.gate.set()
    closing.join(WAIT)
    assert runs.result(WAIT).together == 1
    with refused(EngineError, "the worker was closed before this frame ran"):
        waits.result(WAIT)
    with refused(EngineError, "the worker is closed; open the hasher anew"):
        worker.submit(frames[2])


def test_a_cancelled_frame_does_not_run(
    faulty: Callable[[int], Hasher], frames: npt.NDArray[np.uint8]
) -> None:
    hasher = faulty(0)
    engine: Any = hasher.engine
    engine.gate.clear()
    with HashWorker(hasher) as worker:
        runs = worker.submit(frames[0])
        assert engine.begun.wait(WAIT)
        gone, stays = worker.submit(frames[1]), worker.submit(frames[2])
        assert gone.cancel()
        engine.gate.set()
        results([runs, stays])
    assert engine.sizes == [1, 1]


def test_other_frames_are_refused(plain: Hasher) -> None:
    with HashWorker(plain) as worker, refused(EngineError, "expected a uint8 frame"):
        worker.submit(np.zeros((3, 3, 3), np.uint8))
    with refused(UsageError, "a queue of at least one frame"):
        HashWorker(plain, waiting=0)
