"""Opens a model and the index of its codes together, and those that follow a migration."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import BundleError, FgdeployError, IndexStoreError
from fgdeploy.gallery import bundle_of, old_of
from fgdeploy.hasher import Hasher
from fgdeploy.live.events import tell
from fgdeploy.retrieval import Index

RETRY_S = 30.0  # between two attempts at an index or bundle that cannot be opened
TRIES = 4  # at an index that is replaced again and again
_GLANCES, _GLANCE_S = 50, 0.02  # at the old index: a migration names it soon after the switch

Load = Callable[[Path], Hasher]


@dataclass(frozen=True, eq=False)
class Both:
    """A hasher and the index of its codes. kept_old: the index is the one that was replaced, as it
    was kept, which cannot be written: the new one cannot be used."""

    hasher: Hasher
    index: Index
    kept_old: bool = False


def _anything(index: Index, hasher: Hasher) -> None:
    """Accept all."""


class PairOpener:
    """Opens the index that lies at a path with the bundle that it remembers. It closes nothing that
    it gave out.

    load: opens a bundle. accept: called with both that are new; raises FgdeployError if they cannot
    be used.
    """

    def __init__(
        self,
        path: Path,
        load: Load,
        accept: Callable[[Index, Hasher], object] = _anything,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self._load, self._accept, self._clock = path, load, accept, clock
        self._retry_at = 0.0

    def open(self, bundle: Path | None = None, hasher: Hasher | None = None) -> Both:
        """Open both. bundle: by default the one that the index remembers, or one beside it.

        hasher: one that is open, which is taken if it is of the index's model. Raises
        IndexStoreError, BundleError, EngineError, UsageError, MissingDependency.
        """
        for _ in range(TRIES):
            index = Index.open(self.path)
            try:
                both = Both(self._hasher_for(index, bundle, hasher), index)
            except BaseException:
                index.close()
                raise
            if index.is_current():
                return both
            index.close()  # replaced while the bundle was loaded
            if both.hasher is not hasher:
                both.hasher.close()
        raise IndexStoreError(f"{self.path} is replaced again and again; try later")

    def following(self, before: Both) -> Both | None:
        """Return what goes on in the place of `before`, with its hasher if the model is the same.

        None if that stays: its index lies at the path, or is the old one and the new one is not to
        be tried yet or still fails. Where the new ones cannot be opened, its hasher goes on with
        the old index where it is kept, to be read only; a log line says why, and the new ones are
        tried again every RETRY_S. Raises IndexStoreError where none is kept.
        """
        current = before.index.is_current()
        if current and (not before.kept_old or self._clock() < self._retry_at):
            return None
        try:
            both = self.open(hasher=before.hasher)
        except FgdeployError as error:
            self._retry_at = self._clock() + RETRY_S
            if current:
                return None
            both = self._kept(before.hasher, error)
            tell("old_index_kept", logging.WARNING, index=self.path, why=str(error))
        else:
            tell("index_replaced", index=self.path, model=both.hasher.fingerprint[:12])
        return both

    def _hasher_for(self, index: Index, bundle: Path | None, open_now: Hasher | None) -> Hasher:
        if open_now is not None and open_now.fingerprint == index.fingerprint:
            self._require(open_now, index)
            return open_now
        if (found := bundle or bundle_of(index)) is None:
            raise BundleError(
                f"{self.path}: no bundle of its model {index.fingerprint[:12]} is found"
                + (f", {index.bundle} is not there" if index.bundle else "")
                + "; put it beside the index"
            )
        hasher = self._load(found)
        try:
            self._require(hasher, index)
        except BaseException:
            hasher.close()
            raise
        return hasher

    def _require(self, hasher: Hasher, index: Index) -> None:
        index.require(hasher.fingerprint, hasher.bits)
        self._accept(index, hasher)

    def _kept(self, hasher: Hasher, error: FgdeployError) -> Both:
        aside = old_of(self.path)
        for _ in range(_GLANCES):
            try:
                index = Index.open(aside, read_only=True)
                try:
                    index.require(hasher.fingerprint, hasher.bits)
                except BaseException:
                    index.close()
                    raise
                return Both(hasher, index, kept_old=True)
            except IndexStoreError:
                time.sleep(_GLANCE_S)
        raise IndexStoreError(
            f"{self.path} was replaced and cannot be used now ({error}); none of the model "
            f"before is kept at {aside}"
        ) from error
