"""Several indexes as one: the answers that one index of all items gives, each with its source."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.gallery import (
    QuerySettings,
    answer,
    code_queries,
    item_queries,
    photo_queries,
)
from fgdeploy.gallery.several import SeveralIndexes
from fgdeploy.hasher import Hasher
from fgdeploy.retrieval import Hit, Index, Item
from tests.checks import examples, refused
from tests.fgdeploy.gallery.conftest import BITS, MODEL, paint
from tests.fgdeploy.retrieval import naive

WIDTH = BITS // 8
NAMES = ("a.fgi", "b.fgi", "c.fgi")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(name: str, items: Sequence[Item] = (), model: str = MODEL, bits: int = BITS) -> None:
    with Index.create(name, model, bits) as index:
        index.add(items)


def item(number: int, code: bytes, label: str | None = None) -> Item:
    return Item(f"/photos/{number}.jpg", code, label, "", number)


def bare(hits: Sequence[Hit]) -> list[Hit]:
    return [dataclasses.replace(hit, source=None) for hit in hits]


def split(seed: int, count: int, different: int, ways: int = 3) -> np.ndarray:
    """Make one index of all items, and indexes that have each of them once; return the codes."""
    _, codes = naive.draw(seed, 0, count, WIDTH, different)
    owner = np.random.default_rng(seed).integers(0, ways, count)
    items = [item(n, code.tobytes(), f"class {n % 3}") for n, code in enumerate(codes)]
    made("all.fgi", items)
    for number in range(ways):
        part = [each for each, who in zip(items, owner, strict=True) if who == number]
        made(NAMES[number], part)
    return codes


@pytest.fixture
def parted() -> Iterator[tuple[Index, SeveralIndexes]]:
    split(3, 90, 9)
    with Index.open("all.fgi") as one, SeveralIndexes.open(NAMES) as several:
        yield one, several


# The same answers


@examples(30)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    different=st.sampled_from([1, 2, 6, 60]),
    k=st.integers(1, 70),
    pool=st.integers(0, 20),
)
def test_answers_are_those_of_one_index(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    different: int,
    k: int,
    pool: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("split"))
        split(seed, count, different)
        queries, _ = naive.draw(seed, 3, count, WIDTH, different)
        hashes = np.random.default_rng(seed).random((3, BITS)) + 0.1
        hashes *= np.unpackbits(queries, axis=1).astype(float) * 2 - 1
        where = "label <> 'class 1'"
        with Index.open("all.fgi") as one, SeveralIndexes.open(NAMES) as several:
            assert len(several) == len(one) == count
            for filtered in (None, where):
                found = several.search(queries, k, where=filtered)
                assert list(map(bare, found)) == one.search(queries, k, where=filtered)
                near = several.search_radius(queries[0], 9, where=filtered)
                assert bare(near) == one.search_radius(queries[0], 9, where=filtered)
                for most in (None, k + pool):
                    how = {"where": filtered, "hashes": hashes, "pool": most}
                    ranked = several.search(queries, k, **how)  # type: ignore[arg-type]
                    assert list(map(bare, ranked)) == one.search(queries, k, **how)  # type: ignore[arg-type]
            for hits in several.search(queries, 5):
                for hit in hits:
                    assert hit.source in NAMES
                    assert several.members[hit.source].get([hit.id])[0].path == hit.path


def test_ties_and_equal_ids_stand_by_the_order_of_the_names() -> None:
    for name, ids in (("a.fgi", (3, 5)), ("b.fgi", (3, 4)), ("c.fgi", ())):
        made(name, [item(n, bytes(WIDTH), name) for n in ids])
    zero = np.zeros((1, WIDTH), np.uint8)
    expected = {
        ("a.fgi", "b.fgi", "c.fgi"): [("a.fgi", 3), ("b.fgi", 3), ("b.fgi", 4), ("a.fgi", 5)],
        ("c.fgi", "b.fgi", "a.fgi"): [("b.fgi", 3), ("a.fgi", 3), ("b.fgi", 4), ("a.fgi", 5)],
    }
    for names, places in expected.items():
        with SeveralIndexes.open(names) as several:
            for hits in (
                several.search(zero, 9)[0],
                several.search_radius(zero[0], 0),
                several.search(zero, 9, hashes=np.full((1, BITS), -1.0))[0],
            ):
                assert [(hit.source, hit.id) for hit in hits] == places
                assert [hit.rank for hit in hits] == [1, 2, 3, 4]
                assert [hit.label for hit in hits] == [source for source, _ in places]
            (three,) = several.search(zero, 3)
            assert [(hit.source, hit.id) for hit in three] == places[:3]


def test_embeddings_of_all_order_the_answers() -> None:
    chooser = np.random.default_rng(1)
    rows = chooser.standard_normal((30, 4)).astype(np.float32)
    items = [item(n, bytes([n % 3, 0, 0])) for n in range(30)]
    for name, chosen in (("all.fgi", range(30)), ("a.fgi", range(0, 30, 2))):
        with Index.create(name, MODEL, BITS) as index:
            index.embeddings.keep("float", 4)
            index.add([items[n] for n in chosen], embeddings=rows[list(chosen)])
    made("b.fgi", [items[n] for n in range(1, 30, 2)])
    query, wanted = np.zeros((1, WIDTH), np.uint8), chooser.standard_normal((1, 4))
    with Index.open("all.fgi") as one, SeveralIndexes.open(NAMES[:2]) as several:
        with refused(IndexStoreError, "^b.fgi keeps no embeddings"):
            several.search(query, 4, embeddings=wanted)
        part = several.members["b.fgi"]
        part.remove([each.id for each in part.items() if each.id is not None])
        part.embeddings.keep("float", 4)
        part.add([items[n] for n in range(1, 30, 2)], embeddings=rows[1::2])
        for k, pool in ((4, None), (4, 5), (30, 30), (99, None)):
            (found,) = several.search(query, k, embeddings=wanted, pool=pool)
            assert [bare(found)] == one.search(query, k, embeddings=wanted, pool=pool)


def test_an_index_that_changes_while_it_is_searched(
    parted: tuple[Index, SeveralIndexes],
) -> None:
    """Each search sees one transaction of it: all of the new items or none."""
    _, several = parted
    before, code = len(several), np.full(WIDTH, 7, np.uint8)
    more = [item(1000 + n, code.tobytes(), "new") for n in range(20)]
    stop, failures = threading.Event(), list[BaseException]()

    def change() -> None:
        try:
            with Index.open("b.fgi") as writer:
                while not stop.is_set():
                    writer.add(more)
                    writer.remove([each.id for each in more if each.id is not None])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        seen = set()
        for _ in range(200):
            hits = several.search_radius(code, 0, where="label = 'new'")
            seen.add(len(hits))
            if seen >= {0, 20}:
                break
    finally:
        stop.set()
        thread.join(60)
    assert not failures and not thread.is_alive()
    assert seen <= {0, 20}
    assert len(several) == before


# Queries


def test_queries_of_items_and_photos_are_no_answers_to_themselves(
    hasher: Hasher, tmp_path: Path
) -> None:
    photo = paint(tmp_path / "1.png", (0, 0, 255)).path
    twin = Path(shutil.copy(photo, tmp_path / "twin.png"))
    for name, path in (("a.fgi", photo), ("b.fgi", twin)):
        made(name, [item(n, bytes([n, 0, 255])) for n in (0, 2, 3)])
        with Index.open(name) as index:
            from fgdeploy.bundle import sha256

            index.add([Item(str(path), bytes([0, 0, 255]), None, sha256(path), 7)])
    with SeveralIndexes.open(("a.fgi", "b.fgi")) as several:
        settings = QuerySettings(k=3)

        def places(queries: Iterator[object] | list[object]) -> list[list[tuple[str, int]]]:
            found = answer(several, queries, settings)  # type: ignore[arg-type]
            return [[(hit.source or "", hit.id) for hit in hits] for _, hits in found]

        own = places(photo_queries(several, hasher, [photo], exclude_self=True))  # type: ignore[arg-type]
        assert own == [[("a.fgi", 0), ("b.fgi", 0), ("a.fgi", 2)]]
        (query,) = item_queries(several, ["b.fgi:7"])
        assert query.name == "id b.fgi:7"
        assert places([query]) == [[("a.fgi", 0), ("b.fgi", 0), ("a.fgi", 7)]]
        assert places(code_queries(several, ["0000ff"])) == [  # type: ignore[arg-type]
            [("a.fgi", 0), ("b.fgi", 0), ("a.fgi", 7)]
        ]


def test_an_id_that_two_indexes_have_must_say_which() -> None:
    made("a.fgi", [item(1, bytes(WIDTH)), item(2, bytes(WIDTH))])
    made("b.fgi", [item(1, bytes(WIDTH)), item(3, bytes(WIDTH))])
    with SeveralIndexes.open(("a.fgi", "b.fgi")) as several:
        names = [query.name for query in item_queries(several, [2, "3", "b.fgi:1", "a.fgi:1"])]
        assert names == ["id a.fgi:2", "id b.fgi:3", "id b.fgi:1", "id a.fgi:1"]
        assert [each.id for each in several.get([3, 2])] == [3, 2]
        words = "^item 1 is in a.fgi and in b.fgi; say which is meant: a.fgi:1$"
        for ask in (several.get, lambda ids: item_queries(several, ids)):
            with refused(IndexStoreError, words):
                ask([2, 1])
        with refused(IndexStoreError, "^none of a.fgi, b.fgi has item 9; nothing was read"):
            several.get([9])
        with refused(IndexStoreError, "^a.fgi has no item 3; nothing was read"):
            item_queries(several, ["a.fgi:3"])
        with refused(
            UsageError, "^--id c.fgi:1: c.fgi is not searched; it must be one of --index$"
        ):
            item_queries(several, ["c.fgi:1"])
        for text in ("", "a.fgi:", "a.fgi:x", "x", "-1"):
            with refused(UsageError, "expected a whole number"):
                item_queries(several, [text])
        with refused(UsageError, "expected ids in a list"):
            item_queries(several, "12")
    with Index.open("a.fgi") as index:
        assert [query.name for query in item_queries(index, ["a.fgi:1", "2", 1])] == [
            "id 1",
            "id 2",
            "id 1",
        ]


def test_what_is_known_of_photos_is_what_one_of_the_indexes_knows() -> None:
    made("a.fgi", [Item("/x", bytes(WIDTH), "first", "d" * 64, 1)])
    made("b.fgi", [Item("/x", bytes(WIDTH), "second", "d" * 64, 2), Item("/y", bytes(WIDTH))])
    with SeveralIndexes.open(("a.fgi", "b.fgi")) as several:
        found = several.by_path(path for path in ("/x", "/y", "/z"))
        assert {path: each.label for path, each in found.items()} == {"/x": "first", "/y": None}
        assert several.ids_of_content("d" * 64) == [1, 2]
        assert several.has_label("second") and not several.has_label("third")


# What is refused


def test_all_are_of_one_model() -> None:
    made("a.fgi")
    made("b.fgi", model="cd" * 32)
    made("c.fgi", bits=64)
    for other, what in (("b.fgi", "24-bit codes of model cdcd"), ("c.fgi", "64-bit codes of")):
        with refused(IndexStoreError, rf"^{other} holds {what}.*, a\.fgi 24-bit codes of .* out$"):
            SeveralIndexes.open(("a.fgi", other))
    words = "^a.fgi holds 24-bit codes of model abab"
    with SeveralIndexes.open(["a.fgi"]) as several, refused(IndexStoreError, words):
        several.require("cd" * 32, BITS)


def test_one_folder_is_named_once(tmp_path: Path) -> None:
    made("a.fgi")
    made("b.fgi")
    os.symlink("a.fgi", "link.fgi")
    with refused(UsageError, "^a.fgi is named twice; every item would be found twice"):
        SeveralIndexes.open(("a.fgi", "b.fgi", "a.fgi"))
    for other in ("./a.fgi/", tmp_path / "a.fgi", "link.fgi"):
        with refused(UsageError, "named twice; every item would be found twice"):
            SeveralIndexes.open(("a.fgi", other))
    with refused(UsageError, "^no index is named"):
        SeveralIndexes.open(())


def test_a_part_that_is_missing_or_damaged_is_named() -> None:
    split(5, 40, 9)
    zero = np.zeros((1, WIDTH), np.uint8)
    with refused(IndexStoreError, "^no index at d.fgi; make one with"):
        SeveralIndexes.open((*NAMES, "d.fgi"))
    with SeveralIndexes.open(NAMES) as several:
        several.search(zero, 3)
        os.rename("b.fgi", "old.fgi")
        with refused(IndexStoreError, "^b.fgi was removed by another process"):
            several.search(zero, 3)
        made("b.fgi")
        with refused(IndexStoreError, "^b.fgi was replaced by another index since it was opened"):
            several.search(zero, 3)
    shutil.rmtree("b.fgi")
    os.rename("old.fgi", "b.fgi")
    database = Path("b.fgi", "index.sqlite")
    database.write_bytes(database.read_bytes()[:4096] + b"\xff" * 8192)
    with refused(IndexStoreError, r"^b\.fgi"), SeveralIndexes.open(NAMES) as several:
        several.search(zero, 3)


def test_closed_means_all_closed(parted: tuple[Index, SeveralIndexes]) -> None:
    _, several = parted
    several.close()
    several.close()
    for member in several.members.values():
        with refused(IndexStoreError, "is closed"):
            len(member)
    with refused(IndexStoreError, "^a.fgi is closed"):
        several.search(np.zeros((1, WIDTH), np.uint8))


def test_two_searches_that_name_the_indexes_in_either_order_and_writers_all_end() -> None:
    split(7, 60, 9, 2)
    zero, failures = np.zeros((1, WIDTH), np.uint8), list[BaseException]()

    def search(names: Sequence[str]) -> None:
        try:
            with SeveralIndexes.open(names) as several:
                for _ in range(40):
                    several.search(zero, 3)
        except BaseException as error:
            failures.append(error)

    def write(name: str) -> None:
        try:
            with Index.open(name) as index:
                for number in range(15):
                    index.add([item(1000 + number, bytes(WIDTH))])
        except BaseException as error:
            failures.append(error)

    jobs = [(search, NAMES[:2]), (search, NAMES[1::-1]), (write, "a.fgi"), (write, "b.fgi")]
    threads = [threading.Thread(target=job, args=(names,)) for job, names in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []
