"""From a source to codes: capture, preprocessing and inference overlap, and little waits.

    source -> capture thread -> (1 waits) -> preprocess thread -> worker (1 waits) -> (1 waits)

A frame is taken for the engine when the engine has room for it, not before, so it is the newest
there is. Of a live source the newest win at both ends; of others none is lost, and all wait.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np

from fgdeploy.camera.capture_source import BrokenFrame, Captured, CaptureSource, StreamEnded
from fgdeploy.camera.tally import Tally
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import Outputs
from fgdeploy.live.events import tell
from fgdeploy.live.handover import Ended, Handover
from fgdeploy.live.hash_worker import Answered, Busy, HashWorker
from fgdeploy.photos.images import Frame
from fgdeploy.photos.pixels import Reading

Select = Callable[[Captured], "Captured | None"]

_AHEAD = 2  # frames that the engine has or that wait for it
_GLANCE = 0.1  # seconds between looks at whether the camera was closed
_LEFT = 0.3  # seconds that each thread has to end in, before it is left to itself
_MARGIN = 2.0  # preprocessing begins so many times its usual duration before it must be done
_WEIGHT = 0.1  # of the newest duration in what is usual


class _Usual:
    """What something usually takes, in seconds, as a mean of the last few times."""

    usual = 0.0

    def note(self, seconds: float) -> None:
        self.usual += (seconds - self.usual) * (_WEIGHT if self.usual else 1.0)


@dataclass
class Coded:
    """A frame on its way: what was captured and resized, what the engine gave, seconds by stage.

    before: frames until it that were broken or skipped, so that gaps of `number` can be explained.
    """

    number: int
    captured: Captured
    before: int
    latency: dict[str, float] = field(default_factory=dict)
    frame: Frame | None = None
    outputs: Outputs | None = None
    fingerprint: str = ""

    @property
    def known(self) -> Outputs:
        """What the engine gave, once it has."""
        assert self.outputs is not None
        return self.outputs


class Pipeline(Closing):
    """Runs a source's frames through a worker; `take` gives what comes out, in order of capture.

    worker: gives the one that hashes now; where that changes, the one before does what it has, and
    is closed then. select: called in the preprocess thread with each frame that is to be hashed;
    returns it or a part of it, or None to skip it. An error of any part ends all, after what was
    done before it: then `take` raises Ended and `fault` says why. It closes the source, not the
    worker.
    """

    def __init__(
        self,
        source: CaptureSource,
        worker: Callable[[], HashWorker],
        live: bool,
        select: Select | None = None,
    ) -> None:
        self.tally = Tally()
        self.fault: BaseException | None = None
        self._source, self._worker, self._live, self._select = source, worker, live, select
        self._captured: Handover[Coded] = Handover(1, newest=live)
        self._coded: Handover[Coded] = Handover(1 if live else _AHEAD, newest=live)
        self._changed = threading.Condition()
        self._futures: list[Future[Answered]] = []  # whose results were not handed over yet
        self._pending = 0
        self._stopped = False
        self._began = 0.0  # when the engine began with the frame that runs, near enough
        self._inference, self._preparing = _Usual(), _Usual()
        self._threads = [
            threading.Thread(target=work, name=f"camera {work.__name__.strip('_')}", daemon=True)
            for work in (self._capture, self._prepare)
        ]

    def start(self) -> None:
        """Start capturing."""
        for thread in self._threads:
            thread.start()

    def take(self, timeout: float | None = None) -> Coded | None:
        """Return the next frame that was hashed, None if none came in time.

        Raises Ended when no more will come.
        """
        coded = self._coded.take(timeout)
        with self._changed:
            self._changed.notify_all()
        return coded

    @property
    def dropped(self) -> int:
        """How many frames were dropped for newer ones, or because the camera was closed."""
        return self._captured.dropped + self._coded.dropped + self.tally["lost"]

    @property
    def waiting(self) -> int:
        """How many frames wait to be run: captured ones, and those in the worker's queue."""
        return len(self._captured) + max(0, self._pending - 1)

    def close(self) -> None:
        """End all threads, within a second; a read that blocks is left to end by itself."""
        with self._changed:
            self._stopped = True
            futures = list(self._futures)
            self._changed.notify_all()
        self._captured.close()
        self._coded.close()
        for future in futures:
            future.cancel()
        self._source.interrupt()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(_LEFT)
        for handed in (self._captured, self._coded):
            self._lose_all(handed)

    # Capture

    def _capture(self) -> None:
        try:
            self._source.open()
            while not self._stopped and self._read_one():
                pass
        except StreamEnded:
            pass
        except BaseException as error:  # whatever it is, the one who takes results must know
            self._fail(error)
        finally:
            self._captured.close()
            self._source.close()

    def _read_one(self) -> bool:
        """Read a frame and hand it over; False when nobody wants more."""
        try:
            captured = self._source.read()
        except BrokenFrame as error:
            self.tally.add("captured")
            count = self.tally.add("broken")
            if count & (count - 1) == 0:  # the 1st, 2nd, 4th, ...: a log of bounded length
                source = self._source.describe()
                tell("broken_frame", logging.WARNING, source=source, count=count, error=str(error))
            return True
        if self._stopped:
            return False
        number = self.tally.add("captured") - 1
        if self._captured.put(Coded(number, captured, self.tally["broken"])):
            return True
        self.tally.add("lost")
        return False

    # Preprocessing

    def _prepare(self) -> None:
        try:
            self._warm_up()
            while self._wait_for_room():
                coded = self._captured.take()
                if coded is not None:
                    self._hand_to_worker(coded)
        except Ended:
            pass
        except BaseException as error:
            self._fail(error)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._pending)
        self._lose_all(self._captured)
        self._coded.close()

    def _warm_up(self) -> None:
        """Run the engine once: what it does only the first time is not a frame's to wait for."""
        worker = self._worker()
        size = worker.hasher.manifest.image_size
        try:
            future = worker.submit(np.zeros((size, size, 3), np.uint8))
        except Busy:
            return  # others run it already
        while not self._stopped and wait([future], _GLANCE).not_done:
            pass
        if future.done():
            future.result()

    def _wait_for_room(self) -> bool:
        """Wait until a frame would run soon; False if the camera was closed."""
        with self._changed:
            self._changed.wait_for(self._may_run)
        while not self._stopped and not self._worker().has_room(_GLANCE):
            pass
        if self._live:
            self._wait_until_due()
        return not self._stopped

    def _wait_until_due(self) -> None:
        """While the engine is busy, wait until a frame is just ready when it is free again."""
        with self._changed:
            due = self._began + self._inference.usual - _MARGIN * self._preparing.usual
            self._changed.wait_for(
                lambda: self._stopped or not self._pending, max(0.0, due - time.monotonic())
            )

    def _may_run(self) -> bool:
        # Of a file, what nobody took yet counts too, so that as much is held and no more
        held = self._pending + (0 if self._live else len(self._coded))
        return self._stopped or held < _AHEAD

    def _hand_to_worker(self, coded: Coded) -> None:
        start = time.monotonic()
        try:
            picked = self._select(coded.captured) if self._select else coded.captured
            if picked is None:
                self.tally.add("skipped")
                return
            coded.before += self.tally["skipped"]
            waited = max(0.0, start - picked.at - picked.taken)
            coded.latency |= {"capture": picked.taken, "wait": waited}
            coded.captured = picked
            queued = self._submit(coded, start)
        except BaseException:
            self.tally.add("lost")
            raise
        if queued is None:
            self.tally.add("lost")
            return
        worker, future = queued
        with self._changed:
            self._futures.append(future)
            if not self._pending:
                self._began = time.monotonic()
            self._pending += 1
        future.add_done_callback(functools.partial(self._answered, coded, worker))

    def _submit(self, coded: Coded, start: float) -> tuple[HashWorker, Future[Answered]] | None:
        """Resize and queue a frame as soon as the worker, which others may use too, takes it."""
        while not self._stopped:
            worker = self._worker()
            model = worker.hasher
            if coded.fingerprint != model.fingerprint:
                reading = Reading(coded.captured.color)
                coded.frame = model.manifest.preprocess.frame(coded.captured.pixels, reading)
                coded.fingerprint = model.fingerprint
                coded.latency["preprocess"] = taken = time.monotonic() - start
                self._preparing.note(taken)
            assert coded.frame is not None
            try:
                return worker, worker.submit(coded.frame)
            except Busy:
                worker.has_room(_GLANCE)
            except EngineError:
                if worker is self._worker():
                    raise
        return None

    # Results, in the worker's thread

    def _answered(self, coded: Coded, worker: HashWorker, future: Future[Answered]) -> None:
        kept = False
        if not future.cancelled():
            if (error := future.exception()) is not None:
                if worker is self._worker():
                    self._fail(error)
            else:
                answered = future.result()
                self._inference.note(answered.inference)
                coded.outputs = answered.outputs
                coded.latency |= {"queue": answered.queued, "inference": answered.inference}
                kept = self._coded.put(coded, timeout=0)
        if not kept:
            self.tally.add("lost")
        with self._changed:
            self._futures.remove(future)
            self._pending -= 1
            self._began = time.monotonic()
            self._changed.notify_all()

    # The end

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, and capture no more."""
        with self._changed:
            if self.fault is None and not self._stopped:
                self.fault = error
        self._captured.close()

    def _lose_all(self, handed: Handover[Coded]) -> None:
        """Count what nobody will take any more."""
        try:
            while handed.take(0) is not None:
                self.tally.add("lost")
        except Ended:
            pass
