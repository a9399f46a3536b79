"""An index onto a server: what is there afterwards is what the index holds, nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from fgdeploy.core.errors import IndexStoreError, RemoteError, UsageError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.text import counted
from fgdeploy.remote.push_record import PARTIAL, UPDATING, WHOLE, PushRecord
from fgdeploy.remote.remote_table import RemoteTable
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store.ids import id_of
from fgdeploy.retrieval.store.items import Item, Row, row_checksum
from fgdeploy.retrieval.store.schema import MAX_ID

MAX_BATCH = 100_000
_SAMPLE, _OF_BATCH = 1000, 10  # items that are read back at the end


@dataclass
class Pushed:
    """What a push did. sent: items that were new or changed; removed: those the index lost.

    form: how the server keeps codes, in words of the adapter.
    """

    items: int = 0
    sent: int = 0
    removed: int = 0
    form: str = ""


def push(
    index: Index,
    table: RemoteTable,
    *,
    batch: int | None = None,
    replace: bool = False,
    progress: Progress = no_progress,
) -> Pushed:
    """Make what is on the server equal to the index, in bounded memory.

    Only what is new or changed since is sent, compared by id and checksum; what the index no longer
    has is removed. After any end a push again goes on: nothing is there twice, nothing is lost.
    batch: items in one call; replace: first remove what is there. progress(done, total) counts
    items that the server has acknowledged. Raises IndexStoreError for another model's items,
    UsageError for what does not fit, RemoteError.
    """
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"a batch of {batch}: expected 1 to {MAX_BATCH:,} items")
    record = _begun(index, table, replace)
    before = index.stats().version
    run = _Run(index, table, batch or table.batch, progress)
    try:
        run.go()
        table.settle()
        if index.stats().version != before:
            raise IndexStoreError(f"{index.path} was changed meanwhile")
        _prove(table, run.done.items, run.sample)
    except (RemoteError, IndexStoreError, UsageError) as error:
        raise type(error)(
            f"{error}; {counted(run.acknowledged, 'item')} of {len(index):,} compared or sent; "
            "run it again to go on"
        ) from error
    table.write_record(record.in_state(WHOLE, run.done.items))
    run.done.form = record.form
    return run.done


def _begun(index: Index, table: RemoteTable, replace: bool) -> PushRecord:
    """Return the record of a push that has begun, checked against what was there."""
    bundle = None if index.bundle is None else str(index.bundle)
    fresh = PushRecord(index.fingerprint, index.bits, index.uid, bundle)
    there = table.record()
    if there is not None and replace:
        table.drop()
        there = None
    if there is None:
        return table.create(fresh)
    there.require(table.name, index.fingerprint, index.bits)
    if there.uid != index.uid:
        raise IndexStoreError(
            f"{table.name} holds another index than {index.path}; push to another place, or with "
            "--replace, which removes what is there"
        )
    state = PARTIAL if there.state == PARTIAL else UPDATING
    record = PushRecord(index.fingerprint, index.bits, index.uid, bundle, there.form, state)
    table.write_record(record)
    return record


@dataclass
class _Run:
    """Goes through index and server side by side, in order of id."""

    index: Index
    table: RemoteTable
    batch: int
    progress: Progress
    done: Pushed = field(default_factory=Pushed)
    acknowledged: int = 0
    sample: list[Row] = field(default_factory=list)
    _random: Random = field(default_factory=Random)

    def go(self) -> None:
        """Send and remove what differs."""
        total, after, bare = len(self.index), -1, len(self.table) == 0
        pending: deque[tuple[Future[None], int]] = deque()
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self.table.in_flight))
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            for rows in _pages(self.index, self.batch):
                _check_texts(self.table, rows)
                last = rows[-1][0]
                wanted = rows if bare else self._differing(rows, after + 1, last)
                after = last
                self._sample(rows)
                self.done.items += len(rows)
                self.done.sent += len(wanted)
                if wanted:
                    pending.append((pool.submit(self.table.upsert, wanted), len(rows)))
                else:
                    self.acknowledged += len(rows)
                while len(pending) > self.table.in_flight:
                    self._wait(pending, total)
            while pending:
                self._wait(pending, total)
        if not bare:
            self._differing([], after + 1, MAX_ID)
        self.progress(self.acknowledged, max(total, self.acknowledged))

    def _sample(self, rows: Sequence[Row]) -> None:
        self.sample += self._random.sample(rows, min(_OF_BATCH, len(rows)))
        if len(self.sample) > 2 * _SAMPLE:
            self.sample = self._random.sample(self.sample, _SAMPLE)

    def _wait(self, pending: deque[tuple[Future[None], int]], total: int) -> None:
        future, count = pending.popleft()
        future.result()
        self.acknowledged += count
        self.progress(self.acknowledged, max(total, self.acknowledged))

    def _differing(self, rows: Sequence[Row], first: int, last: int) -> list[Row]:
        """Return the rows that are not on the server; remove there what is in between."""
        missing = {row[0]: row for row in rows}
        sums = {row[0]: row_checksum(row) for row in rows}
        for page in self.table.checksums(first, last):
            strangers = []
            for number, crc in page:
                if number not in sums:
                    strangers.append(number)
                elif sums[number] == crc:
                    missing.pop(number, None)
            if strangers:
                self.table.remove(strangers)
                self.done.removed += len(strangers)
        return list(missing.values())


def _pages(index: Index, size: int) -> Iterator[list[Row]]:
    items = index.items()
    while page := [row_of(item) for item in islice(items, size)]:
        yield page


def row_of(item: Item) -> Row:
    """Return the row of an item that an index gave."""
    content = item.sha256 or None
    return (id_of(item.id), item.code, item.path, item.label, content, item.time, item.json)


def _check_texts(table: RemoteTable, rows: Sequence[Row]) -> None:
    """Raise UsageError for a text that is longer than the server takes."""
    if (most := table.most_text) is None:
        return
    for row in rows:
        for what, text in zip(("path", "label", "sha256", "time", "json"), row[2:], strict=True):
            if text is None or 4 * len(text) <= most:
                continue
            if (size := len(text.encode("utf-8"))) > most:
                raise UsageError(
                    f"item {row[0]}: its {what} has {size:,} bytes, {table.name} takes {most:,} at "
                    "most; shorten or remove it in the index"
                )


def _prove(table: RemoteTable, items: int, sample: Sequence[Row]) -> None:
    """Compare how many items there are, and some of them whole."""
    if (there := len(table)) != items:
        raise RemoteError(
            f"{table.name} has {counted(there, 'item')} after the push, the index {items:,}; is "
            "somebody else changing it?"
        )
    found = table.rows(sorted(row[0] for row in sample))
    for row in sample:
        if found.get(row[0]) != row:
            raise RemoteError(f"{table.name}: item {row[0]} there is not the one that was sent")
