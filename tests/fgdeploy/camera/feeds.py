"""Frames whose number can be read from their code, sources that tests push on, held engines."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from fgdeploy.camera.camera_result import CameraResult
from fgdeploy.camera.capture_source import Captured, CaptureSource, StreamEnded
from fgdeploy.engines import Outputs
from fgdeploy.hasher import Hasher
from tests.checks import COLOUR_SIZE, ColourEngine, colour_bundle

WAIT = 30.0  # seconds after which a test has failed


def numbered(number: int) -> npt.NDArray[np.uint8]:
    """Return a frame of one colour, the code of which is the number."""
    colour = np.frombuffer(number.to_bytes(3, "big"), np.uint8)
    return np.tile(colour, (COLOUR_SIZE, COLOUR_SIZE, 1))


def number_in(result: CameraResult) -> int:
    """Return what frame a code is of."""
    return int.from_bytes(result.code, "big")


class Feed(CaptureSource):
    """Gives what was pushed: frames, or errors to raise; waits for more, also when it is closed."""

    lasts = False

    def __init__(self, given: Iterable[object] = (), live: bool = True, ends: bool = False) -> None:
        self.live = live
        self.given: queue.Queue[object] = queue.Queue()
        self.opened = self.closed = 0
        for one in given:
            self.push(one)
        if ends:
            self.push(StreamEnded("the feed ends"))

    def push(self, one: object) -> None:
        """Give a frame, or raise an error, when its turn comes."""
        self.given.put(one)

    def open(self) -> None:
        self.opened += 1

    def read(self) -> Captured:
        one = self.given.get()
        if isinstance(one, BaseException):
            raise one
        if isinstance(one, Captured):
            return one
        assert isinstance(one, np.ndarray)
        return Captured(one, "rgb")

    def close(self) -> None:
        self.closed += 1

    def describe(self) -> str:
        return "a feed"


class HeldEngine(ColourEngine):
    """Runs as often as it is allowed to; `begun` counts the runs that began."""

    def __init__(self, allowed: int = 1_000_000, batch: int = 8) -> None:
        super().__init__(colour_bundle().manifest)
        self.max_batch = batch
        self.allowed = threading.Semaphore(allowed)
        self.begun = 0
        self.fails_at = -1

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        self.begun += 1
        assert self.allowed.acquire(timeout=WAIT)
        if self.begun > self.fails_at >= 0:
            raise RuntimeError("device lost")
        return super()._run(frames)


def hasher_on(engine: HeldEngine) -> Hasher:
    """Return a hasher on an engine of the tests; opened anew, the engine fails as before."""

    def reopened() -> Hasher:
        fresh = HeldEngine()
        fresh.fails_at = min(engine.fails_at, 0)
        return hasher_on(fresh)

    hasher = Hasher(colour_bundle(), engine)
    hasher.reopened = reopened  # type: ignore[method-assign]
    return hasher


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)
