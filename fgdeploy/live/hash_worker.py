"""One thread owns the engine: frames wait in a bounded queue and run in batches as they come."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import EngineError, FgdeployError, UsageError
from fgdeploy.engines import Outputs
from fgdeploy.engines.base import one_line
from fgdeploy.hasher import Hasher
from fgdeploy.live.events import tell

_FORGIVEN = 10_000  # batches without an error, after which the engine may be rebuilt once more


class Busy(EngineError):
    """As many frames wait for the engine as may; the sender must wait or drop its own."""


@dataclass(frozen=True)
class Answered:
    """The outputs of one frame, each of one row, and its seconds in the queue and the engine.

    together: how many frames ran in its batch.
    """

    outputs: Outputs
    queued: float
    inference: float
    together: int


@dataclass
class _Waiting:
    frame: npt.NDArray[np.uint8]
    since: float = field(default_factory=time.monotonic)
    future: Future[Answered] = field(default_factory=Future)


class HashWorker(Closing):
    """Runs a hasher's engine in a thread of its own, for any number of senders.

    At most `waiting` frames wait. It takes all that wait, up to the hasher's batch, whenever the
    engine is free, or as many as that runs as one (`Engine.at_once`). An error of the engine
    reopens it once and the batch is tried again; the next error stops the worker: `failed` says
    why, and all frames get that error. owns: closing it closes the hasher; without, only one that
    it opened itself.
    """

    def __init__(self, hasher: Hasher, waiting: int = 32, owns: bool = True) -> None:
        if waiting < 1:
            raise UsageError(f"expected a queue of at least one frame, got {waiting}; give 1")
        self.hasher = hasher
        self.waiting = waiting
        self._owns = owns
        self.failed: EngineError | None = None
        self.rebuilt = self.answered = self.refused = 0
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._good = 0  # batches since the engine was rebuilt, or the start
        self._may_rebuild, self._running = True, False
        size = hasher.manifest.image_size
        self._frames = np.empty((hasher.batch, size, size, 3), np.uint8)
        self._thread = threading.Thread(target=self._work, name="hash worker", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many frames wait."""
        return len(self._queue)

    def submit(self, frame: npt.NDArray[np.uint8]) -> Future[Answered]:
        """Queue one frame, uint8 (S, S, 3) as `Preprocess.frame` gives it, copied when it runs.

        Raises Busy if the queue is full, EngineError if the worker is closed or has failed, or the
        frame is none of this model.
        """
        if frame.shape != self._frames.shape[1:] or frame.dtype != np.uint8:
            raise EngineError(
                f"expected a uint8 frame {self._frames.shape[1:]}, got {frame.dtype} "
                f"{frame.shape}; make it with manifest.preprocess.frame"
            )
        with self._changed:
            self._check_open()
            if len(self._queue) >= self.waiting:
                self.refused += 1
                raise Busy(f"{self.waiting} frames wait for the engine; send it again later")
            waiting = _Waiting(frame)
            self._queue.append(waiting)
            self._changed.notify_all()
        return waiting.future

    def has_room(self, timeout: float = 0) -> bool:
        """Tell whether a frame would be taken, waiting for that as long; also True if it failed."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closed or self.failed is not None or len(self._queue) < self.waiting,
                timeout,
            )

    def progress(self) -> int | None:
        """Return what changes while it works, None while there is nothing to do; see Heartbeat."""
        return self.answered if self._queue or self._running else None

    def close(self, timeout: float | None = None) -> None:
        """Give up what waits, let the batch that runs come to its end, close the hasher.

        timeout: seconds after which it is left to do so by itself; None: it is waited for.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _check_open(self) -> None:
        if self.failed is not None:
            raise self.failed
        if self._closed:
            raise EngineError("the worker is closed; open the hasher anew")

    def _work(self) -> None:
        try:
            while batch := self._next():
                self._running = True
                self._answer(batch)
                self._running = False
        finally:
            self._give_up()
            if self._owns:
                self.hasher.close()

    def _next(self) -> list[_Waiting]:
        """Wait for frames and return those to run now; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed or self.failed is not None:
                return []
            count = self.hasher.engine.at_once(min(len(self._queue), len(self._frames)))
            taken = [self._queue.popleft() for _ in range(count)]
            self._changed.notify_all()
        return [one for one in taken if one.future.set_running_or_notify_cancel()] or self._next()

    def _answer(self, batch: list[_Waiting]) -> None:
        start = time.monotonic()
        frames = self._frames[: len(batch)]
        for row, one in zip(frames, batch, strict=True):
            row[...] = one.frame
        try:
            outputs = self._run(frames)
        except EngineError as error:
            with self._changed:
                self.failed = error
                self._changed.notify_all()
            for one in batch:
                one.future.set_exception(error)
            return
        taken = time.monotonic() - start
        self.answered += len(batch)
        for row, one in enumerate(batch):
            mine = outputs if len(batch) == 1 else _row(outputs, row)
            one.future.set_result(Answered(mine, start - one.since, taken, len(batch)))

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        """Run the engine; once it may fail, and is opened anew. Raises EngineError."""
        try:
            outputs = self.hasher.engine.run(frames)
        except Exception as error:  # whatever a backend raises, the engine cannot be trusted
            self._rebuild(error)
            try:
                outputs = self.hasher.engine.run(frames)
            except Exception as again:
                raise self._stopped(again) from again
        self._good += 1
        if self._good >= _FORGIVEN:
            self._may_rebuild = True
        return outputs

    def _rebuild(self, error: Exception) -> None:
        if not self._may_rebuild:
            raise self._stopped(error) from error
        self._may_rebuild, self._good = False, 0
        tell(
            "engine_failed",
            logging.WARNING,
            engine=self.hasher.engine.describe(),
            error=one_line(error),
            next="opened anew",
        )
        try:
            fresh = self.hasher.reopened()
        except FgdeployError as failure:
            raise self._stopped(failure) from error
        self.hasher.close()
        self.hasher, self._owns = fresh, True
        self.rebuilt += 1

    def _stopped(self, error: Exception) -> EngineError:
        engine = self.hasher.engine.describe()
        tell("engine_stopped", logging.ERROR, engine=engine, error=one_line(error))
        return EngineError(
            f"{engine} failed again after it was opened anew: {one_line(error)}; "
            "see: fgdeploy doctor"
        )

    def _give_up(self) -> None:
        error = self.failed or EngineError("the worker was closed before this frame ran")
        with self._changed:
            self._closed = True
            left, self._queue = list(self._queue), deque()
        for one in left:
            if one.future.set_running_or_notify_cancel():
                one.future.set_exception(error)


def _row(outputs: Outputs, row: int) -> Outputs:
    return Outputs.from_arrays(
        {name: value[row : row + 1] for name, value in outputs.arrays().items()}
    )
