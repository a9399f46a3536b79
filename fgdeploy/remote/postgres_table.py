"""An index in PostgreSQL 14 or later, without extensions: `postgresql://host/database`.

A code is a bit(n), its distance bit_count(code # query): the server's own, exact, and as fast as
pgvector's `<~>` (docs/decisions.md). Sources: PostgreSQL's manual, "Bit String Functions and
Operators", "COPY".
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import RemoteError, UsageError
from fgdeploy.core.text import shown
from fgdeploy.remote.filter_tree import parse
from fgdeploy.remote.postgres_filter import PostgresFilter
from fgdeploy.remote.postgres_session import OPTIONS, PostgresSession
from fgdeploy.remote.push_record import PushRecord
from fgdeploy.remote.remote_table import Ranked, RemoteTable
from fgdeploy.remote.server_address import ServerAddress, parse_address
from fgdeploy.retrieval.store.items import Row, row_checksum
from fgdeploy.retrieval.store.schema import MAX_ID
from fgdeploy.retrieval.store.where import Params

if TYPE_CHECKING:
    from psycopg import Connection

_FORM = "postgresql://[USER@]HOST[:PORT]/DATABASE[?table=NAME]"
_NAME = re.compile(r"(?:[a-z_][a-z0-9_]{0,40}\.)?[a-z_][a-z0-9_]{0,40}")
_PAGE = 50_000  # ids or checksums at once
_SETTLE_S = 3600
_COLUMNS = "id, code, path, label, sha256, time, json"
_TYPES = ("int8", "bytea", "text", "text", "text", "text", "text", "int8")
_ITEMS = """
CREATE TABLE {table} (
    id bigint PRIMARY KEY,
    code bit({bits}) NOT NULL,
    path text COLLATE "C",
    label text COLLATE "C",
    sha256 text COLLATE "C",
    time text COLLATE "C" NOT NULL,
    json text COLLATE "C",
    crc bigint NOT NULL
)"""
_META = "CREATE TABLE {meta} (one boolean PRIMARY KEY CHECK (one), record text NOT NULL)"


def open_table(address: str) -> PostgresTable:
    """Connect to the table that an address names; whoever calls closes it.

    Raises UsageError for an address that can never be right, RemoteError.
    """
    return PostgresTable(parse_address(address, _FORM))


class PostgresTable(RemoteTable):
    """The items of one index in a table, its record in another: NAME and NAME_fgdeploy.

    Reads need SELECT on both, nothing else.
    """

    in_flight = 2

    def __init__(self, address: ServerAddress) -> None:
        address.refuse_others(OPTIONS)
        name = address.options.get("table", "gallery")
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{address.text}: table {shown(name)!r}: expected at most 41 of a-z, 0-9 and _, "
                "with its schema before a dot if need be"
            )
        self.name = address.text
        quoted = [f'"{part}"' for part in name.split(".")]
        self._table = ".".join(quoted)
        self._meta = ".".join([*quoted[:-1], f'"{name.rpartition(".")[2]}_fgdeploy"'])
        self._short = name.rpartition(".")[2]
        self._bits = 0
        self._uid: str | None = None
        self._session = PostgresSession(address)
        self._pushing: Connection[Any] | None = None
        self._session.run(lambda connection: connection.execute("SELECT 1"))

    def close(self) -> None:
        """Close all connections."""
        if self._pushing is not None:
            self._pushing.close()
        self._session.close()

    # The record

    def record(self) -> PushRecord | None:
        """Return what stands beside the items, None where neither table is there."""
        found = self._session.run(self._read)
        if found is not None:
            self._bits, self._uid = found.bits, found.uid
        return found

    def _read(self, connection: Connection[Any]) -> PushRecord | None:
        query = "SELECT to_regclass(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL"
        items, meta = _row(connection, query, (self._table, self._meta))
        if not meta:
            if items:
                raise RemoteError(
                    f"{self.name}: there is a table {self._short} that index push did not make; "
                    "name another with ?table=NAME"
                )
            return None
        if not items:
            return None
        found = connection.execute(f"SELECT record FROM {self._meta}").fetchall()
        if len(found) != 1:
            raise RemoteError(f"{self.name}: its record is gone; remove both tables and push again")
        return PushRecord.of_text(found[0][0], self.name)

    def create(self, record: PushRecord) -> PushRecord:
        """Make both tables, empty."""
        self._shut_others_out()
        made = dataclasses.replace(record, form=f"bit({record.bits})")

        def work(connection: Connection[Any]) -> None:
            connection.execute(f"DROP TABLE IF EXISTS {self._meta}")
            connection.execute(_ITEMS.format(table=self._table, bits=int(record.bits)))
            connection.execute(_META.format(meta=self._meta))
            connection.execute(f"INSERT INTO {self._meta} VALUES (true, %s)", (made.as_text(),))

        self._session.run(work)
        self._bits, self._uid = made.bits, made.uid
        return made

    def write_record(self, record: PushRecord) -> None:
        """Put a record in place of the one before."""
        self._shut_others_out()
        update = f"UPDATE {self._meta} SET record = %s"
        self._session.run(lambda connection: connection.execute(update, (record.as_text(),)))

    def drop(self) -> None:
        """Remove both tables."""
        self._shut_others_out()
        drop = f"DROP TABLE IF EXISTS {self._table}, {self._meta}"
        self._session.run(lambda connection: connection.execute(drop))

    def _shut_others_out(self) -> None:
        """Hold the lock of this table's one push until it is closed, or its process has ended."""
        if self._pushing is None or self._pushing.broken:
            self._pushing = self._session.lock(f"fgdeploy push {self._table}")

    # Items

    def __len__(self) -> int:
        query = f"SELECT count(*) FROM {self._table}"
        return int(self._session.run(lambda connection: _row(connection, query, ()))[0])

    def checksums(self, first: int, last: int) -> Iterator[Sequence[tuple[int, int]]]:
        """Yield (id, checksum) of the items with ids from `first` to `last`, ascending."""
        query = f"SELECT id, crc FROM {self._table} WHERE id BETWEEN %s AND %s ORDER BY id LIMIT %s"

        def page_from(start: int) -> list[tuple[int, int]]:
            bounds = (start, last, _PAGE)
            return self._session.run(lambda asked: asked.execute(query, bounds).fetchall())

        while page := page_from(first):
            yield page
            first = page[-1][0] + 1

    def upsert(self, rows: Sequence[Row]) -> None:
        """Put rows in, in one transaction, each in place of the one of its id."""
        self._refuse_nul(rows)
        ids = [row[0] for row in rows]
        length = struct.pack("!i", self._bits)

        def work(connection: Connection[Any]) -> None:
            query = f"SELECT EXISTS (SELECT FROM {self._table} WHERE id BETWEEN %s AND %s)"
            if _row(connection, query, (min(ids), max(ids)))[0]:
                connection.execute(f"DELETE FROM {self._table} WHERE id = ANY(%s)", (ids,))
            copy = f"COPY {self._table} ({_COLUMNS}, crc) FROM STDIN (FORMAT BINARY)"
            with connection.cursor().copy(copy) as copying:
                copying.set_types(_TYPES)
                for row in rows:
                    # a bit string is sent as its length and its bytes
                    copying.write_row((row[0], length + row[1], *row[2:], row_checksum(row)))

        self._session.run(work)

    def _refuse_nul(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if any(text is not None and "\0" in text for text in row[2:]):
                raise UsageError(
                    f"item {row[0]}: one of its texts has the character NUL, which PostgreSQL "
                    "does not keep; change it in the index"
                )

    def remove(self, ids: Sequence[int]) -> None:
        """Remove the items that have these ids."""
        delete = f"DELETE FROM {self._table} WHERE id = ANY(%s)"
        self._session.run(lambda connection: connection.execute(delete, (list(ids),)))

    def settle(self) -> None:
        """Make the ways to items by path and content. Hashes: texts may have any length."""

        def work(connection: Connection[Any]) -> None:
            connection.execute(f"SET LOCAL statement_timeout = '{_SETTLE_S}s'")
            for column in ("path", "sha256"):
                connection.execute(
                    f'CREATE INDEX IF NOT EXISTS "{self._short}_fgdeploy_{column}" '
                    f"ON {self._table} USING hash ({column})"
                )
            connection.execute(f"ANALYZE {self._table}")

        self._session.run(work)

    # Searches

    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        """Return the rows that have these ids, by id."""
        return {row[0]: row for row in self._where("id = ANY(%s::bigint[])", list(ids))}

    def find(self, column: str, values: Sequence[str], most: int | None = None) -> list[Row]:
        """Return rows whose path, label or sha256 is one of the values."""
        known = {name: name for name in ("path", "label", "sha256")}[column]
        possible = [value for value in values if "\0" not in value]
        limit = "" if most is None else f" LIMIT {int(most)}"
        return self._where(f"{known} = ANY(%s::text[]){limit}", possible)

    def _where(self, condition: str, values: Sequence[object]) -> list[Row]:
        query = f"SELECT {_COLUMNS}, crc FROM {self._table} WHERE {condition}"

        def work(connection: Connection[Any]) -> list[Row]:
            cursor, found = connection.cursor(binary=True), []
            for start in range(0, len(values), _PAGE):
                part = values[start : start + _PAGE]
                found += [self._checked(row) for row in cursor.execute(query, (part,))]
            return found

        return self._session.run(work)

    def _checked(self, given: tuple[Any, ...]) -> Row:
        """Return a row that the server gave. Raises RemoteError if no push has written it so."""
        number, code, *texts, crc = given
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            row: Row = (number, code[4:], *texts)
            if row_checksum(row) == crc:
                return row
        raise RemoteError(
            f"{self.name}: item {shown(number)} is not as it was pushed: something else changed "
            "it; push with --replace"
        )

    def nearest(self, codes: UInt8Array, k: int, where: str | None, params: Params) -> list[Ranked]:
        """Return the min(k, N) nearest items of each code, all of one state of the table."""
        return self._ranked(codes, where, params, f"LIMIT {min(k, MAX_ID)}", None)

    def within(self, code: UInt8Array, radius: int, where: str | None, params: Params) -> Ranked:
        """Return all items within `radius` of one code (bytes,), by (distance, id)."""
        return self._ranked(code[None], where, params, "", radius)[0]

    def _ranked(
        self, codes: UInt8Array, where: str | None, params: Params, limit: str, radius: int | None
    ) -> list[Ranked]:
        condition, values = "TRUE", list[object]()
        if where is not None:
            written = PostgresFilter(parse(where, params, "PostgreSQL"))
            condition, values = written.sql, written.params
        distance = f"bit_count(code # %s::bit({self._bits}))"
        if radius is not None:
            condition += f" AND {distance} <= %s::bigint"
        query = (
            f"SELECT {distance} AS distance, id FROM {self._table} WHERE {condition} "
            f"ORDER BY distance, id {limit}"
        )

        def work(connection: Connection[Any]) -> list[Ranked]:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._refuse_replaced(self._read(connection))
            answers = []
            for code in codes:
                text, beyond = self._bits_of(code)
                ball = [] if radius is None else [text, radius - beyond]
                found = connection.execute(query, [text, *values, *ball]).fetchall()
                answers.append([(gap + beyond, number) for gap, number in found])
            return answers

        return self._session.run(work)

    def _refuse_replaced(self, record: PushRecord | None) -> None:
        if record is None or (record.uid, record.bits) != (self._uid, self._bits):
            raise RemoteError(f"{self.name}: another index, or none, is there now; open it anew")

    def _bits_of(self, code: UInt8Array) -> tuple[str, int]:
        """Return a code's bits as text, and how many of those behind its last are set.

        No item has such bits set, so each adds to every distance.
        """
        text = "".join(f"{byte:08b}" for byte in code.tolist())
        return text[: self._bits], text[self._bits :].count("1")


def _row(connection: Connection[Any], query: str, values: Sequence[object]) -> tuple[Any, ...]:
    """Return the one row that a query gives."""
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return tuple(row)
