"""The camera: frames as they come, hashed and answered, for months."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fgdeploy.camera.answering import Answers, answers_of
from fgdeploy.camera.camera_result import CameraResult
from fgdeploy.camera.constancy import Constancy
from fgdeploy.camera.pipeline import Coded, Pipeline, Select
from fgdeploy.camera.reconnecting import Reconnecting
from fgdeploy.camera.sources import open_source
from fgdeploy.camera.tally import CameraCounters
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.hasher import Hasher
from fgdeploy.live.events import tell
from fgdeploy.live.handover import Ended
from fgdeploy.live.hash_worker import HashWorker
from fgdeploy.live.stage_times import StageTimes
from fgdeploy.retrieval import Index

if TYPE_CHECKING:
    from typing_extensions import Self

    from fgdeploy.live.pair import Pair

_LOOKS = 10  # at counters that change


class Camera(Closing):
    """Hashes and searches the frames of a source: `for result in Camera(source, hasher, index)`.

    source: a CaptureSource, or what `open_source` takes: a device number, a URL, a GStreamer
    pipeline, a file, a folder, an iterable of arrays, whose `color` is said. One that lasts is
    opened anew when it breaks off. hasher: one of the caller's, or a HashWorker that others use
    too; index: of the same model, or None for codes alone; or a Pair in place of both, which
    follows `index migrate`. All stay the caller's to close. k: hits of a frame. live: whether the
    newest frame wins or none may be lost; default: as the source is. select: called with each frame
    (Captured) before it is hashed, in a thread of the camera's; returns it, or a part of it with
    `pixels` changed, or None to skip it. search_threads: of one search, None for all cores; one
    waits for no other, whatever the engine does with the cores.

    At most two frames wait. The loop's end closes the camera, in a `with` block that block's end;
    any thread may close it, and it ends within a second. One thread takes the results. A forked
    process must open its own. Raises UsageError, IndexStoreError if the index is of another model;
    the loop raises what the source raises, ImageError for pixels that are no image, EngineError
    when the engine failed again after it was opened anew, IndexStoreError, always after the
    results of the frames before.
    """

    def __init__(
        self,
        source: Any,
        hasher: Hasher | HashWorker | Pair,
        index: Index | None = None,
        k: int = 5,
        color: str | None = None,
        live: bool | None = None,
        select: Select | None = None,
        search_threads: int | None = 1,
    ) -> None:
        if (as_whole(k) or 0) < 1:
            raise UsageError(f"expected at least one hit of a frame, got k={shown(k)}; give 1")
        self._answers = answers_of(hasher, index, k, search_threads)
        try:
            shortest = 2 * self.worker.hasher.manifest.preprocess.resize
            opened = open_source(source, color, live, shortest=shortest)
        except BaseException:
            self._answers.close()
            raise
        steady = isinstance(opened, Reconnecting) or (opened is source and not opened.lasts)
        self.source = opened if steady else Reconnecting(opened)
        self.live = self.source.live if live is None else live
        self.times = StageTimes()
        answers = self._answers  # the threads hold no camera, so that one that nobody holds ends
        self._pipeline = Pipeline(self.source, lambda: answers.worker, self.live, select)
        self._process = os.getpid()
        self._started = self._entered = False
        self._constancy = Constancy()
        self._last = (-1, 0)  # number of the last result, and how many were left out until then
        self._end = weakref.finalize(self, _end, self._process, self._pipeline, answers)

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __iter__(self) -> Iterator[CameraResult]:
        """Start capturing, and yield results until the source ends or the camera is closed."""
        self._start()
        try:
            while (coded := self._next()) is not None:
                yield self._result(coded)
        finally:
            if not self._entered:
                self.close()

    @property
    def worker(self) -> HashWorker:
        """The worker that hashes now."""
        return self._answers.worker

    @property
    def counters(self) -> CameraCounters:
        """What became of the frames so far."""
        found = self._counted()
        for _ in range(_LOOKS):  # one that was captured meanwhile might be without its fate
            found, before = self._counted(), found
            if found.captured == before.captured:
                break
        return found

    def _counted(self) -> CameraCounters:
        tally, pipeline = self._pipeline.tally, self._pipeline
        fates = {name: tally[name] for name in ("processed", "broken", "skipped")}
        return CameraCounters(
            **fates,
            dropped=pipeline.dropped,
            captured=tally["captured"],  # last, so that none of the fates has no frame
            waiting=pipeline.waiting,
            reconnects=getattr(self.source, "reconnects", 0),
            rebuilds=self._answers.rebuilds,
        )

    def close(self) -> None:
        """Stop capturing and hashing; frames under way are dropped. Twice does no harm."""
        self._end()

    def _start(self) -> None:
        if self._process != os.getpid():
            raise UsageError(
                "the camera was opened before this process was forked, and its threads stayed "
                "behind; open it after the fork, or start processes by spawn"
            )
        if not self._end.alive:
            raise UsageError("the camera is closed; open it anew")
        if not self._started:
            self._started = True
            self._pipeline.start()

    def _next(self) -> Coded | None:
        try:
            return self._pipeline.take()
        except Ended:
            if self._pipeline.fault is not None:
                raise self._pipeline.fault from None
            return None

    def _result(self, coded: Coded) -> CameraResult:
        start = time.monotonic()
        try:
            hits = self._answers.hits(coded)
        except BaseException:
            self._pipeline.tally.add("lost")
            raise
        if hits is not None:
            coded.latency["search"] = time.monotonic() - start
        coded.latency["total"] = time.monotonic() - coded.captured.at
        self.times.add(coded.latency)
        (number, before), self._last = self._last, (coded.number, coded.before)
        dropped = coded.number - number - 1 - (coded.before - before)
        self._pipeline.tally.add("processed")
        self._watch(coded)
        return CameraResult(
            coded.number,
            coded.captured,
            coded.known.code[0].tobytes(),
            hits or [],
            coded.latency,
            dropped,
            coded.known,
        )

    def _watch(self, coded: Coded) -> None:
        assert coded.frame is not None
        code = coded.known.code[0].tobytes()
        if self._constancy.noticed(code, coded.frame):
            tell(
                "constant_codes",
                logging.WARNING,
                source=self.source.describe(),
                code=code.hex(),
                engine=self.worker.hasher.engine.describe(),
                see="fgdeploy parity",
            )


def _end(process: int, pipeline: Pipeline, answers: Answers) -> None:
    """Close what a camera runs; in a forked process there is nothing that could be."""
    if process == os.getpid():
        pipeline.close()
        answers.close()
