"""A hasher and an index of one model, and how the service goes on with the next pair.

After `fgdeploy index migrate` another index lies at the path. Requests under way on the old pair
come to their end there, or are done again on the new one; none sees a mixture.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import FgdeployError, IndexStoreError
from fgdeploy.gallery.backfilling import require_width
from fgdeploy.hasher import Hasher
from fgdeploy.live.events import tell
from fgdeploy.live.hash_worker import HashWorker
from fgdeploy.retrieval import Index
from fgdeploy.serve.chained import otherwise
from fgdeploy.serve.serve_settings import ServeSettings

_LOOK_S = 0.5  # between two looks at the path of the index
_AGAIN_S = 5.0  # after a pair that could not be opened

_Result = TypeVar("_Result")
Reopen = Callable[[], tuple[Hasher, Index]]


class ModelPair(Closing):
    """A worker, and perhaps an index of its model. users: requests under way on it."""

    def __init__(self, hasher: Hasher, index: Index | None, settings: ServeSettings) -> None:
        if index is not None:
            index.require(hasher.fingerprint, hasher.bits)
            require_width(index, hasher)
            index.filters.seconds = settings.filter_s
        _warm_up(hasher)
        self.index, self.worker, self.users = index, HashWorker(hasher, settings.waiting), 0

    @property
    def hasher(self) -> Hasher:
        """The hasher that runs."""
        return self.worker.hasher

    def is_current(self) -> bool:
        """Return whether its index, if it has one, still lies at its path."""
        return self.index is None or self.index.is_current()

    def close(self) -> None:
        """Close both, when what runs on them has ended."""
        self.worker.close()
        if self.index is not None:
            self.index.close()


def _warm_up(hasher: Hasher) -> None:
    """Run every number of frames that may run as one: engines load what each takes at its first.

    Twice, since one that is new to them may put the others out, and one that comes back stays.
    """
    side, engine = hasher.manifest.image_size, hasher.engine
    frames = np.zeros((hasher.batch, side, side, 3), np.uint8)
    for _ in range(2):
        for count in sorted({engine.at_once(number + 1) for number in range(hasher.batch)}):
            engine.run(frames[:count])


class PairKeeper(Closing):
    """Keeps the pair that answers. reopen: opens the one that lies at the index's path now.

    Without `reopen` there is one pair for life.
    """

    def __init__(
        self,
        hasher: Hasher,
        index: Index | None,
        settings: ServeSettings,
        reopen: Reopen | None = None,
    ) -> None:
        self.now = ModelPair(hasher, index, settings)
        self._settings, self._reopen = settings, reopen
        self._counting, self._switching = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._retired: list[ModelPair] = []
        self._not_before = 0.0
        self._thread: threading.Thread | None = None
        if reopen is not None and index is not None:
            self._thread = threading.Thread(target=self._watch, name="follow index", daemon=True)
            self._thread.start()

    def ask(self, call: Callable[[ModelPair], Future[_Result]]) -> Future[_Result]:
        """Return what `call` begins on the pair of now, or again on the next if that goes away."""
        with self._counting:
            pair = self.now
            pair.users += 1
        try:
            found = call(pair)
        except BaseException:
            self._leave(pair)
            raise
        found.add_done_callback(lambda done: self._leave(pair))
        if self._thread is None:
            return found

        def again(error: Exception) -> Future[_Result] | None:
            if not isinstance(error, IndexStoreError) or pair.is_current():
                return None
            self._switch(pair)
            return self.ask(call)

        return otherwise(found, again)

    def _leave(self, pair: ModelPair) -> None:
        with self._counting:
            pair.users -= 1

    def _switch(self, old: ModelPair) -> None:
        """Go on with the pair that lies there now, once, whoever asks. Raises FgdeployError."""
        with self._switching:
            if self.now is not old or self._reopen is None:
                return
            if self._ended.is_set() or time.monotonic() < self._not_before:
                raise IndexStoreError("the index was replaced, and its model is not open yet")
            try:
                hasher, index = self._reopen()
                try:
                    fresh = ModelPair(hasher, index, self._settings)
                except BaseException:
                    hasher.close()
                    index.close()
                    raise
            except FgdeployError as error:
                self._not_before = time.monotonic() + _AGAIN_S
                tell("switch_failed", logging.ERROR, error=str(error), again_in=_AGAIN_S)
                raise
            with self._counting:
                self.now = fresh
                self._retired.append(old)
            tell("model_switched", model=fresh.hasher.fingerprint, index=str(index.path))

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            if not self.now.is_current():
                with contextlib.suppress(FgdeployError):
                    self._switch(self.now)
            with self._counting:
                idle = [pair for pair in self._retired if pair.users == 0]
                self._retired = [pair for pair in self._retired if pair.users]
            for pair in idle:
                pair.close()

    def close(self) -> None:
        """Close all pairs."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        for pair in (*self._retired, self.now):
            pair.close()
