"""The items of an index in a Milvus collection."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import RemoteError, UsageError
from fgdeploy.remote.exact_ties import Asked, exact_nearest, exact_within
from fgdeploy.remote.milvus_columns import (
    BINARY,
    FORMS,
    MOST_TEXT,
    SIGNS,
    TEXTS,
    VectorForm,
    columns_of,
    packed,
    row_in,
)
from fgdeploy.remote.milvus_filter import is_there, milvus_expression, quoted
from fgdeploy.remote.milvus_link import MilvusLink, MilvusRefusal
from fgdeploy.remote.milvus_link import is_there as file_is_there
from fgdeploy.remote.milvus_place import MilvusPlace, milvus_place
from fgdeploy.remote.push_record import PushRecord
from fgdeploy.remote.remote_table import Ranked, RemoteTable
from fgdeploy.retrieval.store.items import Row
from fgdeploy.retrieval.store.schema import MAX_ID
from fgdeploy.retrieval.store.where import Params, refused

MOST = 16_384  # answers that Milvus gives to one query
_PROPERTY = "fgdeploy"
_AT_ONCE = 500  # items read or found by one expression: 160 MB if all texts are as long as can be
_BYTES = 16 << 20  # of texts in one upsert; servers take messages of 64 MB
_ROW = ("id", "code", "missing", *TEXTS)
_WORTH_SEALING = 100_000  # rows
_SETTLE_S = 120.0


class MilvusTable(RemoteTable):
    """The items of an index in a Milvus collection; see RemoteTable."""

    in_flight = 3
    most_text = MOST_TEXT

    def __init__(self, place: MilvusPlace) -> None:
        self.name, self._place = place.text, place
        self._opened: MilvusLink | None = None
        self._form, self._bits, self._loaded = BINARY, 0, False
        self._writes = self._sent = 0
        self._seen: int | None = None  # how many writes the last strong read has waited for
        if file_is_there(place):
            self._opened = MilvusLink(place)

    @property
    def _link(self) -> MilvusLink:
        if self._opened is None:
            self._opened = MilvusLink(self._place)
        return self._opened

    def close(self) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened.close()

    # The collection

    def record(self) -> PushRecord | None:
        """Return what stands in the collection's properties, checked against its fields."""
        if self._opened is None or not self._link.call("has_collection"):
            return None
        found = self._link.call("describe_collection")
        text = dict(found.get("properties") or {}).get(_PROPERTY)
        if text is None:
            raise RemoteError(
                f"{self.name} is a collection that index push did not make; it stays as it is: "
                "name another one"
            )
        record = PushRecord.of_text(str(text), self.name)
        self._bits = 8 * code_bytes(record.bits)
        fields = {field["name"]: field for field in found["fields"]}
        kinds = {name: getattr(field["type"], "name", "") for name, field in fields.items()}
        form = FORMS.get(kinds.get("code", ""))
        width = int(fields.get("code", {}).get("params", {}).get("dim", 0))
        if form is None or kinds != _kinds(form) or width != self._bits:
            raise RemoteError(
                f"{self.name}: its fields are not those that index push makes for "
                f"{record.bits}-bit codes; push again with --replace"
            )
        self._form = form
        return record

    def create(self, record: PushRecord) -> PushRecord:
        """Make the collection with binary vectors, or where the server has none, with floats."""
        self._bits, self._loaded = 8 * code_bytes(record.bits), False
        made = self._of_best_form(record)
        try:
            self.write_record(made)
        except MilvusRefusal:
            self.drop()
            raise RemoteError(
                f"{self.name}: it cannot change a collection's properties, where a push notes how "
                "far it is; expected Milvus 2.3 or Milvus Lite 3, or newer"
            ) from None
        return made

    def _of_best_form(self, record: PushRecord) -> PushRecord:
        try:
            return self._made(record, BINARY)
        except MilvusRefusal as error:
            refusal = error
        if self._link.call("has_collection"):
            self._link.call("drop_collection")  # made, but for its index
        try:
            return self._made(record, SIGNS)
        except MilvusRefusal:
            raise refusal from None  # of the kind that was wanted

    def _made(self, record: PushRecord, form: VectorForm) -> PushRecord:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for name, kind in _kinds(form).items():
            options: dict[str, Any] = {"is_primary": True} if name == "id" else {}
            options |= {"dim": self._bits} if name == "code" else {}
            options |= {"max_length": MOST_TEXT} if kind == "VARCHAR" else {}
            schema.add_field(name, getattr(DataType, kind), **options)
        made = dataclasses.replace(record, form=form.words)
        self._link.call(
            "create_collection",
            schema=schema,
            index_params=self._index(form),
            consistency_level="Strong",
            properties={_PROPERTY: made.as_text()},
        )
        self._form = form
        return made

    def _index(self, form: VectorForm) -> Any:
        from pymilvus import MilvusClient

        index = MilvusClient.prepare_index_params()
        index.add_index("code", index_type=form.index, metric_type=form.metric)
        return index

    def write_record(self, record: PushRecord) -> None:
        """Put a record into the collection's properties."""
        self._link.call("alter_collection_properties", properties={_PROPERTY: record.as_text()})

    def drop(self) -> None:
        """Remove the collection."""
        self._link.call("drop_collection")
        self._loaded = False

    def settle(self) -> None:
        """Have much that came sealed and indexed now; for little, the server does so itself."""
        if self._sent >= _WORTH_SEALING:
            self._link.call("flush", timeout=_SETTLE_S)

    def _load(self) -> None:
        """Load the collection, which Milvus Lite forgets at its end and a server may be told to."""
        if self._loaded:
            return
        if not self._link.call("list_indexes"):  # the push that made it was ended before
            self._link.call("create_index", self._index(self._form))
        self._link.call("load_collection", timeout=_SETTLE_S)
        self._loaded = True

    # Its items

    def __len__(self) -> int:
        return self._count("")

    def _count(self, expression: str) -> int:
        found = self._query(expression, ["count(*)"])
        try:
            return int(found[0]["count(*)"])
        except (LookupError, TypeError, ValueError):
            raise self._odd() from None

    def _query(self, expression: str, fields: Sequence[str], **options: Any) -> list[Any]:
        return list(self._read("query", filter=expression, output_fields=list(fields), **options))

    def _read(self, method: str, strong: bool | None = None, **options: Any) -> Any:
        """Read what was there when this began, all that this process wrote included.

        A strong read waits for the server's clock, 0.2 s or more. One is enough: later ones are
        not behind it. strong: whether to wait, by default where something was written since.
        """
        self._load()
        writes = self._writes
        if strong is None:
            strong = self._seen != writes
        level = "Strong" if strong else "Bounded"
        found = self._link.call(method, consistency_level=level, **options)
        if strong:
            self._seen = writes
        return found

    def _odd(self) -> RemoteError:
        return RemoteError(f"{self.name}: an answer of the server is none; push with --replace")

    def checksums(self, first: int, last: int) -> Iterator[Sequence[tuple[int, int]]]:
        """Yield ids and checksums in pages of what one query gives."""
        ranges = [(first, last)]
        while ranges:
            low, high = ranges.pop()
            # Of ids that a push has not come to yet, so its own writes are not waited for.
            unseen = self._seen is None
            found = self._query(_range(low, high), ["id", "crc"], strong=unseen, limit=MOST)
            try:
                page = [(int(one["id"]), int(one["crc"])) for one in found]
            except (KeyError, TypeError, ValueError):
                raise self._odd() from None
            if len(page) < MOST:
                yield page
                continue
            middle = sorted(number for number, _ in page)[(len(page) - 1) // 2]
            ranges += [(middle + 1, high), (low, middle)]

    def upsert(self, rows: Sequence[Row]) -> None:
        """Send rows by columns, few enough for one message."""
        from pymilvus import DataType

        for part in _of_bounded_size(rows):
            kinds, columns = _kinds(self._form), columns_of(part, self._form)
            self._link.upsert_columns(
                [
                    {"name": name, "type": getattr(DataType, kinds[name]), "values": values}
                    for name, values in columns.items()
                ]
            )
            self._writes += 1
            self._sent += len(part)

    def remove(self, ids: Sequence[int]) -> None:
        """Remove items by id."""
        self._load()
        for part in _parts(ids):
            self._link.call("delete", filter=f"id in {part}")
            self._writes += 1

    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        """Return rows by id."""
        found = {}
        for part in _parts(ids):
            found.update({row[0]: row for row in self._rows(f"id in {part}", None)})
        return found

    def find(self, column: str, values: Sequence[str], most: int | None = None) -> list[Row]:
        """Return rows by a text."""
        rows: list[Row] = []
        for start in range(0, len(values), _AT_ONCE):
            listed = ", ".join(map(quoted, values[start : start + _AT_ONCE]))
            rows += self._rows(f"{is_there(column)} and {column} in [{listed}]", most)
        return rows

    def _rows(self, expression: str, most: int | None) -> list[Row]:
        options = {} if most is None else {"limit": most}
        found = self._query(expression, _ROW, **options)
        try:
            return [row_in(one, self._form) for one in found]
        except (KeyError, TypeError, ValueError):
            raise self._odd() from None

    # Searching it

    def nearest(self, codes: UInt8Array, k: int, where: str | None, params: Params) -> list[Ranked]:
        """Return the nearest by (distance, id). UsageError for more than MOST of them."""
        if k > MOST and (k := min(k, len(self))) > MOST:
            raise UsageError(
                f"k is {k:,}: Milvus gives {MOST:,} answers to a query at most (its topk); ask for "
                "fewer, or for all within a radius"
            )
        return exact_nearest(self._asking(where, params), packed(codes), max(k, 1), MOST)

    def within(self, code: UInt8Array, radius: int, where: str | None, params: Params) -> Ranked:
        """Return all within a radius by (distance, id)."""
        return exact_within(self._asking(where, params), code.tobytes(), radius, MOST)

    def _asking(self, where: str | None, params: Params) -> Asked:
        """Return what asks the server for the nearest in a range of ids, of those that match."""
        expression = milvus_expression(where, params)

        def ask(
            codes: Sequence[bytes], limit: int, low: int, high: int
        ) -> list[tuple[Ranked, bool]]:
            bounds = "" if (low, high) == (0, MAX_ID) else _range(low, high)
            both = " and ".join(f"({one})" for one in (bounds, expression) if one)
            try:
                return self._search(codes, limit, both)
            except MilvusRefusal as error:
                if where is None:
                    raise
                raise refused(where, f"the server does not take it ({error})") from None

        return ask

    def _search(
        self, codes: Sequence[bytes], limit: int, expression: str
    ) -> list[tuple[Ranked, bool]]:
        """Return the `limit` nearest of each code, and whether those are all there are.

        Fewer are believed to be all only if they are as many as the server counts.
        """
        answers = self._read(
            "search",
            data=self._form.vectors(codes),
            anns_field="code",
            filter=expression,
            limit=limit,
            search_params={"metric_type": self._form.metric},
        )
        try:
            found = [
                [
                    (self._form.distance(float(hit["distance"]), self._bits), int(hit["id"]))
                    for hit in hits
                ]
                for hits in answers
            ]
        except (KeyError, TypeError, ValueError):
            raise self._odd() from None
        if len(found) != len(codes) or any(len(set(one)) < len(one) for one in found):
            raise self._odd()
        total = self._count(expression) if any(len(one) < limit for one in found) else None
        for one in found:
            if len(one) > limit or (len(one) < limit and len(one) != total):
                raise RemoteError(
                    f"{self.name} gave {len(one):,} of {limit:,}, and counts {total}; "
                    "is somebody changing it? Search again"
                )
        return [(one, len(one) == total) for one in found]


def open_table(address: str) -> MilvusTable:
    """Connect to the Milvus of an address; see `milvus_place` for its form."""
    return MilvusTable(milvus_place(address))


def _kinds(form: VectorForm) -> dict[str, str]:
    """Return the kind of each field, as pymilvus' DataType calls it."""
    numbers = {"id": "INT64", "code": form.kind, "crc": "INT64", "missing": "INT8"}
    return numbers | dict.fromkeys(TEXTS, "VARCHAR")


def _range(low: int, high: int) -> str:
    return f"id >= {low} and id <= {high}"


def _parts(ids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield list(ids[start : start + _AT_ONCE])


def _of_bounded_size(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield the rows in parts whose texts are not too many bytes for a message."""
    start = size = 0
    for place, row in enumerate(rows):
        size += sum(4 * len(text) for text in row[2:] if text)
        if size > _BYTES and place > start:
            yield rows[start:place]
            start, size = place, 0
    yield rows[start:]
