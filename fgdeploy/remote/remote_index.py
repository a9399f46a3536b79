"""An index on a server: the answers of `fgdeploy.retrieval.Index`, in the same order."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fgdeploy.core.closing import Closing
from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import IndexStoreError, RemoteError, UsageError
from fgdeploy.core.text import counted
from fgdeploy.remote.push_record import PARTIAL, UPDATING
from fgdeploy.remote.remote_table import Ranked, RemoteTable
from fgdeploy.retrieval import Hit, Item
from fgdeploy.retrieval.scan.search import check_k, check_packed, check_radius, check_threads
from fgdeploy.retrieval.store.ids import known_ids, texts_of
from fgdeploy.retrieval.store.items import Row, item_of
from fgdeploy.retrieval.store.rerank import Hashes
from fgdeploy.retrieval.store.reranking import EmbeddingRows
from fgdeploy.retrieval.store.schema import MAX_ID
from fgdeploy.retrieval.store.where import Params

_TRIES = 3  # where items are removed or changed between two calls
_NAMED = 5  # ids in a message

_log = logging.getLogger("fgdeploy")


class RemoteIndex(Closing):
    """What a push put on a server, to be searched; a `Searchable`. It closes the table.

    Answers are compared with the codes of their items before they are given. Raises RemoteError
    where nothing is there, or a first push has not ended.
    """

    def __init__(self, table: RemoteTable) -> None:
        self._table, self.name = table, table.name
        record = table.record()
        if record is None:
            raise RemoteError(
                f"nothing is at {self.name}; fill it with: fgdeploy index push gallery.fgi --to "
                f"{shlex.quote(self.name)}"
            )
        if record.state == PARTIAL:
            raise RemoteError(
                f"the push to {self.name} has not ended, so answers would be missing; go on with "
                f"it by: fgdeploy index push gallery.fgi --to "
                f"{shlex.quote(self.name)}"
            )
        if record.state == UPDATING:
            _log.warning(
                "a push to %s is under way or was broken off: some items are as they were before",
                self.name,
            )
        self.record = record
        self.bits, self.fingerprint, self.uid = record.bits, record.fingerprint, record.uid
        self.bundle = None if record.bundle is None else Path(record.bundle)

    def close(self) -> None:
        """Close the connection."""
        self._table.close()

    def require(self, fingerprint: str, bits: int) -> None:
        """Raise IndexStoreError unless codes of this model may be compared with its own."""
        self.record.require(self.name, fingerprint, bits)

    def __len__(self) -> int:
        return len(self._table)

    def get(self, ids: Sequence[int]) -> list[Item]:
        """Return items in the order of `ids`. Raises IndexStoreError that names unknown ids."""
        wanted = known_ids(ids)
        possible = sorted({number for number in wanted if 0 <= number <= MAX_ID})
        found = self._table.rows(possible)
        if unknown := [number for number in dict.fromkeys(wanted) if number not in found]:
            named = ", ".join(map(str, unknown[:_NAMED]))
            raise IndexStoreError(
                f"{self.name} has no {'item' if len(unknown) == 1 else 'items'} {named}"
                + (f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else "")
            )
        return [item_of(found[number]) for number in wanted]

    def by_path(self, paths: Iterable[str], *, checked: bool = True) -> dict[str, Item]:
        """Return the items that have these paths, by path."""
        wanted = sorted(texts_of("paths", paths))
        return {str(row[2]): item_of(row) for row in self._table.find("path", wanted)}

    def ids_of_content(self, digest: str) -> list[int]:
        """Return the ids of all items whose photos have this sha256, ascending."""
        wanted = sorted(texts_of("digests", [digest]))
        return sorted(row[0] for row in self._table.find("sha256", wanted))

    def has_label(self, label: str) -> bool:
        """Return whether some item has this label."""
        return bool(self._table.find("label", [label], most=1))

    def search(
        self,
        codes: UInt8Array,
        k: int = 10,
        *,
        where: str | None = None,
        params: Params = (),
        hashes: Hashes | None = None,
        embeddings: EmbeddingRows | None = None,
        pool: int | None = None,
        threads: int | None = None,
    ) -> list[list[Hit]]:
        """Return the min(k, N) nearest items of each query code (Q, bytes), by (distance, id).

        As `Index.search`; a server holds codes alone, so hashes, embeddings and pool are refused
        with UsageError, as is a `where` that means another thing there.
        """
        if hashes is not None or embeddings is not None or pool is not None:
            raise UsageError(
                f"{self.name} is searched by codes alone, so nothing is re-ranked; search the "
                "index that was pushed"
            )
        self._check(codes)
        check_k(k, 1)
        check_threads(threads)
        if len(codes) == 0:
            return []
        for _ in range(_TRIES):
            found = self._table.nearest(codes, int(k), where, params)
            if (hits := self._hits(codes, found)) is not None:
                return hits
        raise self._unsettled()

    def search_radius(
        self,
        code: UInt8Array,
        radius: int,
        *,
        where: str | None = None,
        params: Params = (),
        threads: int | None = None,
    ) -> list[Hit]:
        """Return all items within `radius` bits of one code (bytes,), by (distance, id)."""
        code = np.asarray(code)
        self._check(code[None])
        check_radius(radius)
        check_threads(threads)
        for _ in range(_TRIES):
            found = self._table.within(code, min(int(radius), 8 * len(code)), where, params)
            if (hits := self._hits(code[None], [found])) is not None:
                return hits[0]
        raise self._unsettled()

    def _check(self, codes: UInt8Array) -> None:
        check_packed("queries", codes)
        if codes.shape[1] != (width := code_bytes(self.bits)):
            raise UsageError(
                f"queries have {codes.shape[1]} bytes, codes {width}; hash both with the same model"
            )

    def _hits(self, codes: UInt8Array, found: Sequence[Ranked]) -> list[list[Hit]] | None:
        """Return answers with what their items say, None where some do not fit their distance."""
        rows = self._table.rows(sorted({number for ranked in found for _, number in ranked}))
        answers = [_checked(code, ranked, rows) for code, ranked in zip(codes, found, strict=True)]
        whole = [answer for answer in answers if answer is not None]
        return whole if len(whole) == len(answers) else None

    def _unsettled(self) -> RemoteError:
        return RemoteError(
            f"{self.name}: items and answers did not fit in {counted(_TRIES, 'attempt')}; if "
            "nobody is changing it, push with --replace"
        )


def _checked(code: UInt8Array, ranked: Ranked, rows: Mapping[int, Row]) -> list[Hit] | None:
    query, hits = int.from_bytes(code.tobytes(), "big"), []
    for rank, (distance, number) in enumerate(ranked, start=1):
        row = rows.get(number)
        if row is None or (int.from_bytes(row[1], "big") ^ query).bit_count() != distance:
            return None
        hits.append(Hit(rank, distance, number, row[2], row[3]))
    return hits
