"""An index on Milvus, on a server and in a file: answers are the index's own."""

from __future__ import annotations

import gc
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError, RemoteError, UsageError
from fgdeploy.remote import milvus_table
from fgdeploy.remote.adapters import connect, table_at
from fgdeploy.remote.milvus_columns import BINARY, SIGNS
from fgdeploy.remote.milvus_link import MilvusLink
from fgdeploy.remote.pushing import push, row_of
from fgdeploy.remote.remote_table import RemoteTable
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.remote.conftest import BITS, MODEL, some_items

_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _files_left_open() -> Iterator[None]:
    """Milvus Lite leaves files of a collection that is dropped to the garbage collector."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


FORMS = {"server": BINARY.words, "lite": SIGNS.words}


@pytest.fixture(params=FORMS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of a collection of the test's own."""
    if kind == "lite":
        pytest.importorskip("milvus_lite", exc_type=ImportError)
        return f"milvus+lite://{tmp_path}/gallery.db/birds"
    return f"{request.getfixturevalue('milvus').address}/birds_{next(_NUMBERS)}"


@pytest.fixture
def table(address: str) -> Iterator[RemoteTable]:
    with table_at(address) as opened:
        yield opened


def _rows(table: RemoteTable, index: Index) -> bool:
    rows = {row[0]: row for row in map(row_of, index.items())}
    return len(table) == len(rows) and table.rows(sorted(rows)) == rows


def test_a_push_sends_all_and_a_second_one_what_changed(
    index: Index, table: RemoteTable, kind: str
) -> None:
    done = push(index, table, batch=30)
    assert (done.items, done.sent, done.removed, done.form) == (100, 100, 0, FORMS[kind])
    assert _rows(table, index)
    index.remove([1, 2, 50, 99, 100])
    index.add(
        [Item("/new\N{BUG}\t.jpg", b"\1\2\x30", "\x01new", "", 0, json='"' + "ü" * 30_000 + '"')]
    )
    index.relabel({"/photos/3/3.jpg": "Adler"})
    done = push(index, table)
    assert (done.items, done.sent, done.removed) == (96, 2, 5)
    assert _rows(table, index)
    assert push(index, table).sent == 0
    assert push(index, table, replace=True).sent == 96
    assert _rows(table, index)


def test_3000_codes_with_many_duplicates(address: str, tmp_path: Path, kind: str) -> None:
    """Every k around ties, and radii; what the store answers beside."""
    with Index.create(tmp_path / "many.fgi", MODEL, BITS) as index:
        index.add(some_items(3000))
        with table_at(address) as table:
            push(index, table)
        queries = np.frombuffer(b"".join(item.code for item in index.items()), np.uint8)
        queries = queries.reshape(-1, 3)[:4].copy()
        queries[2:, 0] ^= 0x11
        queries[3, 2] |= 0x0F  # bits behind the last, which no item has
        with connect(address) as remote:
            sizes = {hit.distance for hit in index.search(queries[:1], 3000)[0]}
            assert len(sizes) > 5
            for k in (1, 31, *range(70, 84, 3 if kind == "server" else 7)):
                assert remote.search(queries, k) == index.search(queries, k), k
            for k in (2999, 1 << 70):
                assert remote.search(queries[2:3], k) == index.search(queries[2:3], k), k
            for radius in (0, 1, 6, 100):
                assert remote.search_radius(queries[3], radius) == index.search_radius(
                    queries[3], radius
                )
            assert remote.get([5, 3, 2999, 5]) == index.get([5, 3, 2999, 5])
            paths = ["/photos/1/1.jpg", "/photos/3/3.jpg", "nowhere", "", 'a"\\\n\0']
            assert remote.by_path(paths) == index.by_path(paths)
            assert remote.ids_of_content(f"{1:064x}") == index.ids_of_content(f"{1:064x}")
            labels = ("", "Uhu", "UHU", 'o"wl', "back\\slash", "\n", "none")
            assert [remote.has_label(x) for x in labels] == [index.has_label(x) for x in labels]
            with refused(IndexStoreError, "has no item 9000$"):
                remote.get([5, 9000])


@pytest.mark.parametrize("bits", [8, 511])
def test_codes_of_any_width(address: str, tmp_path: Path, bits: int) -> None:
    random = np.random.default_rng(bits)
    codes = np.packbits(random.integers(0, 2, (500, bits), dtype=np.uint8), axis=1)
    with Index.create(tmp_path / "gallery.fgi", MODEL, bits) as index:
        index.add_codes(codes)
        with table_at(address) as table:
            push(index, table)
        with connect(address) as remote:
            assert remote.search(codes[:9], 20) == index.search(codes[:9], 20)
            assert remote.search_radius(codes[0], bits // 2) == index.search_radius(
                codes[0], bits // 2
            )


def test_ties_that_do_not_fit_one_answer(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_table, "MOST", 40)  # of about 75 equal codes each
    with Index.create(tmp_path / "many.fgi", MODEL, BITS) as index:
        index.add(some_items(3000))
        with table_at(address) as table:
            push(index, table)
        query = np.frombuffer(next(index.items()).code, np.uint8)[None]
        with connect(address) as remote:
            for k in (1, 7, 39, 40):
                assert remote.search(query, k) == index.search(query, k)
            asked = {"where": "id > 1500"}
            assert remote.search(query, 30, **asked) == index.search(query, 30, **asked)
            assert remote.search_radius(query[0], 3) == index.search_radius(query[0], 3)
            with refused(UsageError, "k is 41: Milvus gives 40 answers to a query at most .its to"):
                remote.search(query, 41)


def test_what_is_something_else_is_refused(
    index: Index, address: str, table: RemoteTable, tmp_path: Path
) -> None:
    with refused(RemoteError, "nothing is at milvus.*; fill it with: fgdeploy index push"):
        connect(address)
    push(index, table)
    words = "codes of model cdcdcdcdcdcd.*these are .*efefefefefef"
    with (
        Index.create(tmp_path / "third.fgi", "ef" * 32, BITS) as third,
        refused(IndexStoreError, words),
    ):
        push(third, table)
    with (
        Index.create(tmp_path / "wide.fgi", MODEL, 24) as wide,
        refused(IndexStoreError, "holds 20-bit codes.*these are 24-bit"),
    ):
        push(wide, table)
    client = table._link._client  # type: ignore[attr-defined]
    name = address.rpartition("/")[2]
    client.alter_collection_properties(name, properties={"fgdeploy": "odd"})
    with refused(RemoteError, "what it says of its items is not what index push writes"):
        table.record()
    client.drop_collection(name)
    client.create_collection(name, 16, "id", "int", "vector", "IP")
    with refused(RemoteError, "a collection that index push did not make; it stays as it is"):
        push(index, table, replace=True)
    assert client.has_collection(name)


def test_a_push_that_ended_before_the_index_was_made_goes_on(
    index: Index, address: str, table: RemoteTable
) -> None:
    push(index, table)
    link, name = table._link, address.rpartition("/")[2]  # type: ignore[attr-defined]
    link._client.release_collection(name)
    link._client.drop_index(name, "code")
    with table_at(address) as again:
        assert push(index, again).sent == 0
    with connect(address) as remote:
        query = np.zeros((1, 3), np.uint8)
        assert remote.search(query, 9) == index.search(query, 9)


def test_rows_are_sent_where_columns_cannot_be(
    index: Index, table: RemoteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MilvusLink, "_way_of_columns", lambda self: None)
    assert push(index, table).sent == 100
    assert _rows(table, index)
