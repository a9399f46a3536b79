"""What an adapter gives: the items of one index on a server, as rows that can be searched."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from fgdeploy.core.closing import Closing
from fgdeploy.core.codes import UInt8Array
from fgdeploy.remote.push_record import PushRecord
from fgdeploy.retrieval.store.items import Row
from fgdeploy.retrieval.store.where import Params

Ranked = list[tuple[int, int]]  # (distance, id), ascending


class RemoteTable(Closing):
    """The items of one index on a server; a context manager. An adapter is a subclass.

    name: its address, to be shown. batch: rows in one call unless told. in_flight: how many calls
    of `upsert` at once pay; more than one come from several threads. most_text: bytes that a text
    may have, None without a limit. Every call ends in bounded time, and raises RemoteError in one
    line where the server cannot be reached, refuses, or answers what is none.
    """

    name: str
    batch = 10_000
    in_flight = 1
    most_text: int | None = None

    # What a push needs

    @abstractmethod
    def record(self) -> PushRecord | None:
        """Return what stands beside the items, None where nothing is there.

        Raises RemoteError where something else than an index was put there.
        """

    @abstractmethod
    def create(self, record: PushRecord) -> PushRecord:
        """Make it, empty, and return the record with the `form` that was chosen."""

    @abstractmethod
    def write_record(self, record: PushRecord) -> None:
        """Put a record in place of the one before, on the server's disk when it returns."""

    @abstractmethod
    def drop(self) -> None:
        """Remove it with all its items."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many items are there now."""

    @abstractmethod
    def checksums(self, first: int, last: int) -> Iterator[Sequence[tuple[int, int]]]:
        """Yield (id, `row_checksum`) of the items with ids from `first` to `last`, both included.

        In any order, in pages of bounded length; each item once, if nobody changes them meanwhile.
        """

    @abstractmethod
    def upsert(self, rows: Sequence[Row]) -> None:
        """Put rows in, each in place of the one of its id; kept whatever happens when it returns.

        With each row goes its `row_checksum`, for `checksums`.
        """

    @abstractmethod
    def remove(self, ids: Sequence[int]) -> None:
        """Remove the items that have these ids."""

    def settle(self) -> None:
        """Make ready for searches what was put in."""

    # What a search needs

    @abstractmethod
    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        """Return the rows that have these ids, by id; ids that are not there are left out."""

    @abstractmethod
    def find(self, column: str, values: Sequence[str], most: int | None = None) -> list[Row]:
        """Return rows whose `column` (path, label or sha256) is one of the values, in any order.

        most: so many are enough.
        """

    @abstractmethod
    def nearest(self, codes: UInt8Array, k: int, where: str | None, params: Params) -> list[Ranked]:
        """Return the min(k, N) nearest items of each code (Q, bytes), by (distance, id).

        where: as `Index.search` has it. Raises UsageError for one that has not the same meaning on
        the server, and for more than the server gives at once.
        """

    @abstractmethod
    def within(self, code: UInt8Array, radius: int, where: str | None, params: Params) -> Ranked:
        """Return all items within `radius` of one code (bytes,), by (distance, id)."""
