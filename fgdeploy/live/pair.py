"""A model and the index of its codes as one: both change together, when the index was replaced."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fgdeploy import hasher as hashing
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import BundleError, FgdeployError, IndexStoreError
from fgdeploy.gallery import bundle_of, old_of
from fgdeploy.hasher import Hasher
from fgdeploy.live.events import tell
from fgdeploy.retrieval import Index

RETRY_S = 30.0  # between two attempts at an index or bundle that cannot be opened
_TRIES = 4  # at an index that is replaced again and again

_Result = TypeVar("_Result")
Load = Callable[[Path], Hasher]


@dataclass
class Both:
    """A hasher and the index of its codes. kept_old: the index is the one that was replaced, as it
    was kept, which cannot be written: the new one cannot be used."""

    hasher: Hasher
    index: Index
    kept_old: bool = False
    _users: int = 0


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
        self.path, self._load, self._clock = path, load, clock
        self._mutex, self._refreshing = threading.Lock(), threading.Lock()
        self._closed, self._retry_at = False, 0.0
        self._both = self._opened(bundle)

    @contextlib.contextmanager
    def using(self) -> Iterator[Both]:
        """Give both, which nobody closes meanwhile. Raises IndexStoreError if closed."""
        with self._mutex:
            if self._closed:
                raise IndexStoreError(f"{self.path} is closed; open it anew")
            both = self._both
            both._users += 1
        try:
            yield both
        finally:
            with self._mutex:
                both._users -= 1
                done = both._users == 0 and (self._closed or both is not self._both)
            if done:
                self._close(both)

    def answer(self, work: Callable[[Hasher, Index], _Result]) -> _Result:
        """Return what `work` gives; where the index is replaced meanwhile, it works anew with both
        new ones."""
        for attempt in range(_TRIES):
            with self.using() as both:
                try:
                    return work(both.hasher, both.index)
                except IndexStoreError:
                    if both.index.is_current() or attempt == _TRIES - 1:
                        raise
            self.refresh()
        raise AssertionError("the last attempt returns or raises")

    def refresh(self) -> bool:
        """Go over to the index that lies at the path now; returns whether the pair is another one.

        Where it or its bundle cannot be opened, the old hasher goes on with the old index where it
        is kept, to be read only; a log line says why, and the new ones are tried again every
        RETRY_S. Raises IndexStoreError where none is kept.
        """
        with self._refreshing:
            before = self._both
            current = before.index.is_current()
            if self._closed or (current and not before.kept_old):
                return False
            if current and self._clock() < self._retry_at:
                return False
            try:
                both = self._opened(None)
            except FgdeployError as error:
                self._retry_at = self._clock() + RETRY_S
                if current:
                    return False
                both = self._kept(before, error)
                tell("old_index_kept", logging.WARNING, index=self.path, why=str(error))
            else:
                tell("index_replaced", index=self.path, model=both.hasher.fingerprint[:12])
            with self._mutex:
                self._both = both
                idle = before._users == 0
            if idle:
                self._close(before)
            return True

    def close(self) -> None:
        """Close both, when their last user is done."""
        with self._mutex:
            already, self._closed = self._closed, True
            idle = self._both._users == 0
        if idle and not already:
            self._close(self._both)

    def _opened(self, bundle: Path | None) -> Both:
        for _ in range(_TRIES):
            index = Index.open(self.path)
            try:
                both = Both(self._hasher_for(index, bundle), index)
            except BaseException:
                index.close()
                raise
            if index.is_current():
                return both
            self._close(both)  # replaced while the bundle was loaded
        raise IndexStoreError(f"{self.path} is replaced again and again; try later")

    def _hasher_for(self, index: Index, bundle: Path | None) -> Hasher:
        before: Both | None = getattr(self, "_both", None)
        if before is not None and before.hasher.fingerprint == index.fingerprint:
            return before.hasher
        if (found := bundle or bundle_of(index)) is None:
            raise BundleError(
                f"{self.path}: no bundle of its model {index.fingerprint[:12]} is found"
                + (f", {index.bundle} is not there" if index.bundle else "")
                + "; put it beside the index"
            )
        hasher = self._load(found)
        try:
            index.require(hasher.fingerprint, hasher.bits)
        except BaseException:
            hasher.close()
            raise
        return hasher

    def _kept(self, before: Both, error: FgdeployError) -> Both:
        aside = old_of(self.path)
        try:
            index = Index.open(aside, read_only=True)
            try:
                index.require(before.hasher.fingerprint, before.hasher.bits)
            except BaseException:
                index.close()
                raise
        except IndexStoreError:
            raise IndexStoreError(
                f"{self.path} was replaced and cannot be used now ({error}); none of the model "
                f"before is kept at {aside}"
            ) from error
        return Both(before.hasher, index, kept_old=True)

    def _close(self, both: Both) -> None:
        both.index.close()
        with self._mutex:
            shared = both is not self._both and both.hasher is self._both.hasher
        if not shared:
            both.hasher.close()
