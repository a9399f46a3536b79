"""A server that is none: what a push and a search need, in memory, with faults on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from fgdeploy.core.codes import UInt8Array, hamming
from fgdeploy.core.errors import RemoteError, UsageError
from fgdeploy.remote.push_record import PushRecord
from fgdeploy.remote.remote_table import Ranked, RemoteTable
from fgdeploy.retrieval.store.items import Row, row_checksum
from fgdeploy.retrieval.store.where import Params


class MemoryTable(RemoteTable):
    """fail_after: so many calls of `upsert` go well, then the server is gone."""

    name, batch = "memory://here/birds", 16

    def __init__(self) -> None:
        self.kept: dict[int, Row] = {}
        self.note: str | None = None
        self.calls: list[int] = []
        self.fail_after: int | None = None

    def close(self) -> None:
        """It stays as it is, to be opened again."""

    def record(self) -> PushRecord | None:
        return None if self.note is None else PushRecord.of_text(self.note, self.name)

    def create(self, record: PushRecord) -> PushRecord:
        made = dataclasses.replace(record, form="rows")
        self.write_record(made)
        return made

    def write_record(self, record: PushRecord) -> None:
        self.note = record.as_text()

    def drop(self) -> None:
        self.kept, self.note = {}, None

    def __len__(self) -> int:
        return len(self.kept)

    def checksums(self, first: int, last: int) -> Iterator[Sequence[tuple[int, int]]]:
        found = [(n, row_checksum(row)) for n, row in self.kept.items() if first <= n <= last]
        for start in range(0, len(found), 7):
            yield found[start : start + 7]

    def upsert(self, rows: Sequence[Row]) -> None:
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise RemoteError(f"{self.name} does not answer; is the server up?")
        self.calls.append(len(rows))
        self.kept.update((row[0], row) for row in rows)

    def remove(self, ids: Sequence[int]) -> None:
        for number in ids:
            del self.kept[number]

    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        return {number: self.kept[number] for number in ids if number in self.kept}

    def find(self, column: str, values: Sequence[str], most: int | None = None) -> list[Row]:
        place = {"path": 2, "label": 3, "sha256": 4}[column]
        return [row for row in self.kept.values() if row[place] in values][:most]

    def nearest(self, codes: UInt8Array, k: int, where: str | None, params: Params) -> list[Ranked]:
        return [self._ranked(code, where)[:k] for code in codes]

    def within(self, code: UInt8Array, radius: int, where: str | None, params: Params) -> Ranked:
        return [one for one in self._ranked(code, where) if one[0] <= radius]

    def _ranked(self, code: UInt8Array, where: str | None) -> Ranked:
        if where is not None:
            raise UsageError("this server filters nothing")
        if not self.kept:
            return []
        ids = list(self.kept)
        codes = np.frombuffer(b"".join(self.kept[n][1] for n in ids), np.uint8)
        distances = hamming(code[None], codes.reshape(len(ids), -1))[0]
        return sorted(zip(distances.tolist(), ids, strict=True))
