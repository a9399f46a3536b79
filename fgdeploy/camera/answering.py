"""Who hashes frames and who answers: a hasher and an index that stay, or a pair that changes."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from fgdeploy.camera.pipeline import Coded
from fgdeploy.core.errors import UsageError
from fgdeploy.hasher import Hasher
from fgdeploy.live.hash_worker import Busy, HashWorker
from fgdeploy.photos.pixels import Reading
from fgdeploy.retrieval import Hit, Index

if TYPE_CHECKING:
    from fgdeploy.live.pair import Pair

_WAITING = 2  # frames in the queue of a worker of the camera's own
_LEFT = 0.3  # seconds for the batch that runs, when it is closed
_IDLE = 5.0  # seconds for what a worker has still to do, before another takes its place
_GLANCE = 0.01  # seconds between looks at it


class Answers(Protocol):
    """Has the worker that hashes now, and finds the hits of a frame that was hashed.

    rebuilds: how often the engine was opened anew after an error, of all workers so far.
    """

    worker: HashWorker

    @property
    def rebuilds(self) -> int: ...

    def hits(self, coded: Coded) -> Sequence[Hit] | None: ...

    def close(self) -> None: ...


class Staying:
    """A hasher, or a worker that others use too, and an index or none; all stay the caller's."""

    def __init__(
        self, hasher: Hasher | HashWorker, index: Index | None, k: int, threads: int | None
    ) -> None:
        self._own = not isinstance(hasher, HashWorker)
        model = hasher.hasher if isinstance(hasher, HashWorker) else hasher
        model.engine.check_open()
        if index is not None:
            index.require(model.fingerprint, model.bits)
        self.worker = (
            hasher if isinstance(hasher, HashWorker) else HashWorker(hasher, _WAITING, owns=False)
        )
        self._index, self._k, self._threads = index, k, threads

    @property
    def rebuilds(self) -> int:
        """How often the worker opened its engine anew."""
        return self.worker.rebuilt

    def hits(self, coded: Coded) -> Sequence[Hit] | None:
        """Return the k nearest items, None without an index. Raises IndexStoreError."""
        if self._index is None:
            return None
        return self._index.search(coded.known.code, self._k, threads=self._threads)[0]

    def close(self) -> None:
        """Close a worker of its own."""
        if self._own:
            self.worker.close(_LEFT)


class Following:
    """A pair, which stays the caller's: when the index was replaced, frames go to the new model.

    A frame that the old model hashed is hashed anew before it is searched, so that none is lost.
    """

    def __init__(self, pair: Pair, k: int, threads: int | None) -> None:
        self._pair, self._k, self._threads = pair, k, threads
        self.worker = self._begin()
        self._rebuilds = 0  # of the workers before

    @property
    def rebuilds(self) -> int:
        """How often all workers so far opened their engines anew."""
        return self._rebuilds + self.worker.rebuilt

    def hits(self, coded: Coded) -> Sequence[Hit]:
        """Return the k nearest items in the index of now. Raises IndexStoreError, EngineError."""
        self._pair.refresh()
        return self._pair.answer(functools.partial(self._search, coded))

    def close(self) -> None:
        """Close the worker and let go of the pair."""
        self.worker.close(_LEFT)
        self._using.close()

    def _begin(self) -> HashWorker:
        """Return a worker on the pair's hasher, which is not closed while it works."""
        self._using = contextlib.ExitStack()
        both = self._using.enter_context(self._pair.using())
        return HashWorker(both.hasher, _WAITING, owns=False)

    def _search(self, coded: Coded, hasher: Hasher, index: Index) -> Sequence[Hit]:
        if hasher.fingerprint != self.worker.hasher.fingerprint:
            self._go_over()
        if coded.fingerprint != hasher.fingerprint:
            self._hash_anew(coded)
        return index.search(coded.known.code, self._k, threads=self._threads)[0]

    def _go_over(self) -> None:
        old, using = self.worker, self._using
        counted = old.rebuilt
        self.worker = self._begin()
        self._rebuilds += counted
        end = time.monotonic() + _IDLE
        while old.progress() is not None and old.failed is None and time.monotonic() < end:
            time.sleep(_GLANCE)
        old.close(_LEFT)
        self._rebuilds += old.rebuilt - counted
        using.close()

    def _hash_anew(self, coded: Coded) -> None:
        model = self.worker.hasher
        captured = coded.captured
        coded.frame = model.manifest.preprocess.frame(captured.pixels, Reading(captured.color))
        while True:
            try:
                answered = self.worker.submit(coded.frame).result()
                break
            except Busy:
                self.worker.has_room(_GLANCE)
        coded.outputs, coded.fingerprint = answered.outputs, model.fingerprint


def answers_of(
    hasher: Hasher | HashWorker | Pair, index: Index | None, k: int, threads: int | None
) -> Answers:
    """Return who answers. Raises EngineError for a closed hasher, IndexStoreError, UsageError."""
    if isinstance(hasher, (Hasher, HashWorker)):
        return Staying(hasher, index, k, threads)
    if index is not None:
        raise UsageError("a pair has its own index; leave index out")
    return Following(hasher, k, threads)
