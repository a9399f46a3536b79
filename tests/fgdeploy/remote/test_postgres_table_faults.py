"""What goes wrong with PostgreSQL: each in one line, and after any end a push goes on."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import RemoteError, UsageError
from fgdeploy.remote import postgres_session
from fgdeploy.remote.adapters import connect, table_at
from fgdeploy.remote.pushing import push, row_of
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.remote.conftest import BITS, MODEL, some_items
from tests.fgdeploy.remote.postgres_server import PostgresOfTests

_PUSH = """
import sys
from fgdeploy.remote.adapters import table_at
from fgdeploy.remote.pushing import push
from fgdeploy.retrieval import Index

def told(done, total):
    print(done, flush=True)

with Index.open(sys.argv[1]) as index, table_at(sys.argv[2]) as table:
    push(index, table, batch=20, progress=told)
"""


@pytest.fixture
def large(tmp_path: Path) -> Index:
    with Index.create(tmp_path / "large.fgi", MODEL, BITS) as made:
        made.add(some_items(3000))
        return Index.open(made.path)


def _is_whole(index: Index, address: str) -> bool:
    rows = {row[0]: row for row in map(row_of, index.items())}
    with table_at(address) as table:
        return len(table) == len(rows) and table.rows(sorted(rows)) == rows


def test_a_server_that_ends_during_a_push(large: Index, postgres: PostgresOfTests) -> None:
    address = f"{postgres.address}?table=cut"
    ended: list[int] = []

    def end(done: int, total: int) -> None:
        if done > 1000 and not ended:
            ended.append(done)
            postgres.stop()

    with table_at(address) as table:
        try:
            with refused(RemoteError, "of 3,000 compared or sent; run it again to go on$"):
                push(large, table, batch=20, progress=end)
        finally:
            postgres.start()
        with refused(RemoteError, "the push to .* has not ended, so answers would be missing"):
            connect(address)
        done = push(large, table, batch=50)
    assert 0 < done.sent < 3000 and done.items == 3000
    assert _is_whole(large, address)
    with connect(address) as remote:
        codes = np.array([[1, 2, 0x30]], np.uint8)
        before = remote.search(codes, 50)
        assert before == large.search(codes, 50)
        postgres.stop()
        postgres.start()
        assert remote.search(codes, 50) == before  # by a new connection


def test_a_push_that_is_killed(large: Index, postgres: PostgresOfTests) -> None:
    address = f"{postgres.address}?table=killed"
    command = [sys.executable, "-c", _PUSH, str(large.path), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pushing:
        try:
            assert pushing.stdout is not None
            for line in pushing.stdout:
                if int(line) > 500:
                    break
        finally:
            pushing.kill()
    with table_at(address) as table:
        done = push(large, table)
    assert 0 < done.sent < 3000 and done.items == 3000
    assert _is_whole(large, address)


def test_many_threads_search_one_index(large: Index, postgres: PostgresOfTests) -> None:
    address = f"{postgres.address}?table=threads"
    with table_at(address) as table:
        push(large, table)
    codes = np.random.default_rng(1).integers(0, 256, (40, 3), dtype=np.uint8) & 0xF0
    expected, wrong = large.search(codes, 9), list[object]()

    with connect(address) as remote:

        def search(turn: int) -> None:
            try:
                for at in range(turn, 40, 4):
                    if remote.search(codes[at : at + 1], 9) != [expected[at]]:
                        wrong.append(at)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=search, args=(turn,)) for turn in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not wrong
    with refused(RemoteError, "is closed; open it anew"):
        remote.search(codes, 3)


def test_no_server_a_silent_one_and_no_database(
    postgres: PostgresOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(RemoteError, "onnection refused.*is the server up, and is the address right"):
        table_at("postgresql://postgres@127.0.0.1:1/postgres")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
        start = time.monotonic()
        with refused(RemoteError, "timeout expired.*is the server up"):
            table_at(f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres")
        assert time.monotonic() - start < 30
    with refused(RemoteError, 'database "postgres_none" does not exist; name another user'):
        table_at(f"{postgres.address}_none")


def test_passwords_come_from_the_environment_and_are_not_shown(
    postgres: PostgresOfTests, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import psycopg

    with psycopg.connect(postgres.address, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS guarded")
        admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'sesame'")
        address = f"{postgres.of('guarded')}?table=nothing"
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
        with refused(RemoteError, "no password supplied; the password is read from PGPASSWORD"):
            table_at(address)
        monkeypatch.setenv("PGPASSWORD", "sesame1")
        with pytest.raises(RemoteError, match=r"password authentication failed.*PGPASS") as caught:
            table_at(address)
        assert "sesame" not in str(caught.value)
        monkeypatch.setenv("PGPASSWORD", "sesame")
        with table_at(address) as table:
            assert table.record() is None
            assert "sesame" not in table.name
        with refused(UsageError, "holds a password, which others would see"):
            table_at(address.replace("guarded@", "guarded:sesame@"))
        admin.execute("DROP ROLE guarded")


def test_a_server_that_is_too_old_or_keeps_no_unicode(
    postgres: PostgresOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    with psycopg.connect(postgres.address, autocommit=True) as admin:
        admin.execute(
            "CREATE DATABASE postgres_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        )
    with refused(RemoteError, "keeps text as SQL_ASCII, expected UTF8"):
        table_at(f"{postgres.address}_ascii")
    monkeypatch.setattr(postgres_session, "_OLDEST", 990000)
    with refused(RemoteError, "runs PostgreSQL 18, expected 99 or later, which counts bits"):
        table_at(postgres.address)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("?table=a%22%3B%20DROP", "table 'a\"; DROP': expected at most 41 of"),
        ("?table=A", "table 'A': expected at most 41 of a-z"),
        ("?table=a.b.c", "table 'a.b.c': expected"),
        ("?options=-csearch_path%3Dx", "unknown option 'options'; expected table, host, service"),
        ("?password=x", "has the option 'password', which others would see"),
    ],
)
def test_addresses_that_are_none(rest: str, words: str) -> None:
    pytest.importorskip("psycopg", exc_type=ImportError)
    with refused(UsageError, words):
        table_at(f"postgresql://host/database{rest}")
