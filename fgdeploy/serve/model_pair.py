"""A hasher and an index of one model, and how the service goes on with the next pair.

After `fgdeploy index migrate` another index lies at the path. Requests under way on the old pair
come to their end there, or are done again on the new one; none sees a mixture. Where the new one
cannot be opened, searches go on with the old index where it is kept.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import numpy as np

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import FgdeployError, IndexStoreError
from fgdeploy.gallery.backfilling import require_width
from fgdeploy.hasher import Hasher
from fgdeploy.live.events import tell
from fgdeploy.live.hash_worker import HashWorker
from fgdeploy.live.pair_opener import Both, Load, PairOpener
from fgdeploy.retrieval import Index
from fgdeploy.serve.chained import otherwise
from fgdeploy.serve.serve_settings import ServeSettings

_LOOK_S = 0.5  # between two looks at the path of the index
_AGAIN_S = 5.0  # after a switch that failed: neither the new index nor an old one can be used

_Result = TypeVar("_Result")


class ModelPair:
    """A worker, and perhaps an index of its model. users: requests under way on it.

    kept_old: the index is the one of before, which cannot be written (`PairOpener`).
    """

    def __init__(self, worker: HashWorker, index: Index | None, kept_old: bool = False) -> None:
        self.worker, self.index, self.kept_old, self.users = worker, index, kept_old, 0

    @property
    def hasher(self) -> Hasher:
        """The hasher that runs."""
        return self.worker.hasher

    def is_current(self) -> bool:
        """Return whether its index, if it has one, still lies at its path."""
        return self.index is None or self.index.is_current()


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
    """Keeps the pair that answers, and closes all. load: opens the bundle of another index, which
    lies at the path of this one after a migration.

    Without `load` there is one pair for life.
    """

    def __init__(
        self,
        hasher: Hasher,
        index: Index | None,
        settings: ServeSettings,
        load: Load | None = None,
    ) -> None:
        if index is not None:
            index.require(hasher.fingerprint, hasher.bits)
            require_width(index, hasher)
            index.filters.seconds = settings.filter_s
        _warm_up(hasher)
        self._settings = settings
        self.now = ModelPair(HashWorker(hasher, settings.waiting), index)
        self._counting, self._switching = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._retired: list[ModelPair] = []
        self._not_before = 0.0
        self._opener: PairOpener | None = None
        if load is not None and index is not None:
            opens = functools.partial(_warmed, load)
            self._opener = PairOpener(Path(index.path), opens, require_width)
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
        if self._opener is None:
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
            if self.now is not old or self._opener is None or old.index is None:
                return
            if self._ended.is_set() or time.monotonic() < self._not_before:
                raise IndexStoreError("the index was replaced, and its model is not open yet")
            before = Both(old.hasher, old.index, old.kept_old)
            try:
                both = self._opener.following(before)
            except FgdeployError as error:
                self._not_before = time.monotonic() + _AGAIN_S
                tell("switch_failed", logging.ERROR, error=str(error), again_in=_AGAIN_S)
                raise
            if both is None:
                return
            both.index.filters.seconds = self._settings.filter_s
            same = both.hasher is before.hasher
            worker = old.worker if same else HashWorker(both.hasher, self._settings.waiting)
            with self._counting:
                self.now = ModelPair(worker, both.index, both.kept_old)
                self._retired.append(old)

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with contextlib.suppress(FgdeployError):
                self._switch(self.now)
            with self._counting:
                idle = [pair for pair in self._retired if pair.users == 0]
                self._retired = [pair for pair in self._retired if pair.users]
                needed = {pair.worker for pair in (self.now, *self._retired)}
            _close(idle, needed)

    def close(self) -> None:
        """Close all pairs."""
        self._ended.set()
        if self._opener is not None:
            self._thread.join()
        with self._switching:
            _close([*self._retired, self.now], set())


def _close(pairs: Sequence[ModelPair], needed: AbstractSet[HashWorker]) -> None:
    """Close pairs when what runs on them has ended, without the workers that others need."""
    for worker in {pair.worker for pair in pairs} - needed:
        worker.close()
    for pair in pairs:
        if pair.index is not None:
            pair.index.close()


def _warmed(load: Load, bundle: Path) -> Hasher:
    hasher = load(bundle)
    try:
        _warm_up(hasher)
    except BaseException:
        hasher.close()
        raise
    return hasher
