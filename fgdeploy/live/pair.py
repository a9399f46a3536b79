"""A model and the index of its codes as one: both change together, when the index was replaced."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from fgdeploy import hasher as hashing
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.hasher import Hasher
from fgdeploy.live.pair_opener import TRIES, Both, Load, PairOpener
from fgdeploy.retrieval import Index

_Result = TypeVar("_Result")


class Pair(Closing):
    """Holds a hasher and an index, for any number of threads, and follows `index migrate`.

    `refresh` looks whether the index was replaced, as often as wanted: it costs one stat. Then the
    new one and the bundle that it remembers are opened, and only when both work do they take the
    place of the old ones, which are closed when their last user is done.
    """

    def __init__(
        self,
        path: Path,
        bundle: Path | None = None,
        load: Load = hashing.load,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open both. bundle: by default the one that the index remembers, or one beside it.

        load: how to open a bundle, such as functools.partial(fgdeploy.load, self_test=10). Raises
        IndexStoreError, BundleError, EngineError, UsageError, MissingDependency.
        """
        self.path, self._opener = path, PairOpener(path, load, clock=clock)
        self._mutex, self._refreshing = threading.Lock(), threading.Lock()
        self._closed = False
        self._both = self._opener.open(bundle)
        self._users = {self._both: 0}  # of all that are open

    @contextlib.contextmanager
    def using(self) -> Iterator[Both]:
        """Give both, which nobody closes meanwhile. Raises IndexStoreError if closed."""
        with self._mutex:
            if self._closed:
                raise IndexStoreError(f"{self.path} is closed; open it anew")
            both = self._both
            self._users[both] += 1
        try:
            yield both
        finally:
            with self._mutex:
                self._users[both] -= 1
            self._close_unused()

    def answer(self, work: Callable[[Hasher, Index], _Result]) -> _Result:
        """Return what `work` gives; where the index is replaced meanwhile, it works anew with both
        new ones."""
        for attempt in range(TRIES):
            with self.using() as both:
                try:
                    return work(both.hasher, both.index)
                except IndexStoreError:
                    if both.index.is_current() or attempt == TRIES - 1:
                        raise
            self.refresh()
        raise AssertionError("the last attempt returns or raises")

    def refresh(self) -> bool:
        """Go over to the index that lies at the path now; returns whether the pair is another one.

        Where it or its bundle cannot be opened, the old hasher goes on with the old index where it
        is kept, to be read only, as `PairOpener.following` says. Raises IndexStoreError where none
        is kept.
        """
        with self._refreshing:
            if self._closed or (both := self._opener.following(self._both)) is None:
                return False
            with self._mutex:
                self._both = both
                self._users[both] = 0
            self._close_unused()
            return True

    def close(self) -> None:
        """Close both, when their last user is done."""
        with self._mutex:
            self._closed = True
        self._close_unused()

    def _close_unused(self) -> None:
        """Close what nobody uses and nobody will; a hasher when no index that is open needs it."""
        with self._mutex:
            kept = None if self._closed else self._both
            unused = [both for both, users in self._users.items() if not users and both is not kept]
            for both in unused:
                del self._users[both]
            needed = {both.hasher for both in self._users}
        for both in unused:
            both.index.close()
        for hasher in {both.hasher for both in unused} - needed:
            hasher.close()
