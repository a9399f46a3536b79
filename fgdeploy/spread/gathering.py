"""Rows of codes as they come back from many workers, put in their places and kept by shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgdeploy.code_table import NO_FACTS, CodeTable, Rows
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.photos import Photo
from fgdeploy.spread.hash_actor import CODE, PHOTO, error_of
from fgdeploy.spread.shard_folder import ShardFolder
from fgdeploy.spread.stored_photos import StoredPhotos


class Gathering:
    """What is still to be hashed of a table, and what came of it so far.

    shard: rows of a file; a shard of which all rows are told is written at once. strict: one photo
    that cannot be read ends it, the first in the list of all. rest: rows that are to be hashed;
    told: of how many an answer came; workers: that gave answers.
    """

    def __init__(
        self,
        photos: Sequence[Photo] | StoredPhotos,
        table: CodeTable,
        shards: ShardFolder,
        shard: int,
        strict: bool,
    ) -> None:
        self._photos = photos
        self._table = table
        self._shards = shards
        self._shard = shard
        self._strict = strict
        self._waiting = ~table.done
        self._bad: dict[int, str] = {}
        self._unkept: set[int] = set()  # shards with rows that are in no file
        self.rest: Rows = np.flatnonzero(self._waiting)
        self._left = np.bincount(self.rest // shard)
        self.told = 0
        self.workers: set[str] = set()

    def take(self, answer: Any) -> None:
        """Take in the rows of an answer (`HashActor`); each row once, also of what ran twice.

        Raises the error that ends the work; ImageError if `strict`, as soon as the first one is
        known; DataError for a photo that is here and not where a worker is.
        """
        rows, codes, error = [], [], None
        for one in answer.to_pylist():
            self.workers.add(one["worker"])
            row = one["position"]
            if one["kind"] not in (CODE, PHOTO):
                error = error_of(one["kind"], one["text"])
            elif self._waiting[row]:
                facts = one["size"], one["changed"]
                self._tell(row)
                if one["kind"] == PHOTO:
                    self._check_seen(row, facts, one["worker"])
                    self._bad[row] = one["text"]
                    continue
                self._table.note(row, self._listed(row, facts))
                rows.append(row)
                codes.append(np.frombuffer(one["code"], np.uint8))
        if rows:
            self._table.enter(np.array(rows), np.stack(codes))
            self._unkept.update(np.unique(np.array(rows) // self._shard).tolist())
        self.keep(finished=True)
        if error is not None:
            raise error
        self._check_bad()

    def skipped(self) -> list[str]:
        """Return why photos could not be read, in order of the list."""
        return [self._bad[row] for row in sorted(self._bad)]

    def keep(self, finished: bool = False) -> None:
        """Write the shards with news; only those of which all rows are told if `finished`."""
        for number in sorted(self._unkept):
            if finished and self._left[number]:
                continue
            first = number * self._shard
            done = self._table.done[first : first + self._shard]
            self._shards.write(number, self._table.record(first + np.flatnonzero(done)))
            self._unkept.discard(number)

    def _tell(self, row: int) -> None:
        self._waiting[row] = False
        self._left[row // self._shard] -= 1
        self.told += 1

    def _listed(self, row: int, facts: tuple[int, int]) -> tuple[int, int]:
        """Return the facts of a photo: from before it was read, or listed."""
        return self._photos.facts(row) if isinstance(self._photos, StoredPhotos) else facts

    def _check_seen(self, row: int, facts: tuple[int, int], worker: str) -> None:
        if isinstance(self._photos, StoredPhotos) or facts != NO_FACTS:
            return
        path = self._photos[row].path
        if os.path.exists(path):
            raise DataError(
                f"{path} lies on this machine, and the worker {worker} does not see it; give the "
                "photos the same place on every machine, or an address such as s3://"
            )

    def _check_bad(self) -> None:
        if self._strict and self._bad:
            first = min(self._bad)
            if not self._waiting[:first].any():
                raise ImageError(self._bad[first])
