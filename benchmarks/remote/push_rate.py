"""How fast an index goes to a server, beside what bounds it: reading the index, and bare COPY.

    PYTHONPATH=. .venv/bin/python benchmarks/remote/push_rate.py GALLERY.fgi [--to ADDRESS]

Without an address a PostgreSQL server is started here, its fsync off as in the tests; --to takes
that of any server, whose table there is replaced. A search for 10 codes at once and one by one,
k 10, is timed beside the index's own.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgdeploy.remote.adapters import connect, table_at
from fgdeploy.remote.pushing import push, row_of
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store.items import row_checksum

_PAGE = 10_000


def _told(what: str, count: int, start: float) -> None:
    seconds = time.perf_counter() - start
    print(f"| {what} | {seconds:.1f} s | {count / seconds:,.0f}/s |", flush=True)


def _bare_copy(index: Index, address: str) -> None:
    """Copy rows that lie ready in memory into a table without keys, as fast as the client can."""
    import psycopg

    rows = [row_of(item) for item in itertools.islice(index.items(), 200_000)]
    ready = [(*row, row_checksum(row)) for row in rows]
    with psycopg.connect(address.partition("?")[0]) as connection:
        columns = "id int8, code bytea, a text, b text, c text, d text, e text, f int8"
        connection.execute(f"CREATE TEMP TABLE bare ({columns})")
        start = time.perf_counter()
        with connection.cursor().copy("COPY bare FROM STDIN (FORMAT BINARY)") as copying:
            copying.set_types(("int8", "bytea", *["text"] * 5, "int8"))
            for row in ready:
                copying.write_row(row)
        _told("bare COPY, rows ready", len(rows), start)


def _times(index: Index, address: str) -> None:
    codes = np.frombuffer(b"".join(i.code for i in itertools.islice(index.items(), 10)), np.uint8)
    codes = codes.reshape(10, -1)
    with connect(address) as remote:
        assert remote.search(codes, 10) == index.search(codes, 10)
        for name, searched in (("the index", index), ("the server", remote)):
            start = time.perf_counter()
            searched.search(codes, 10)
            _told(f"{name}, 10 codes at once", 10, start)
            start = time.perf_counter()
            for code in codes:
                searched.search(code[None], 10)
            _told(f"{name}, one by one", 10, start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--to")
    given = parser.parse_args()
    with Index.open(given.index, read_only=True) as index, _server(given.to) as address:
        print("| what | time | items or queries |\n|---|---|---|")
        start = time.perf_counter()
        _told("reading the index alone", sum(1 for _ in index.items()), start)
        if address.startswith("postgresql:"):
            _bare_copy(index, address)
        for what, replace in (("first push", True), ("push again, nothing changed", False)):
            with table_at(address) as table:
                start = time.perf_counter()
                _told(what, push(index, table, replace=replace).items, start)
        _times(index, address)


@contextlib.contextmanager
def _server(address: str | None) -> Iterator[str]:
    if address is not None:
        yield address
        return
    from tests.fgdeploy.remote.postgres_server import postgres_server

    with postgres_server() as server:
        yield f"{server.address}?table=push_rate"


if __name__ == "__main__":
    main()
