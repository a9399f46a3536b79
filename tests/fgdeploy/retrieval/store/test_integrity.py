"""What is not found is not there: damage that would hide an item is told before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import checksums, integrity
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, database, force, raw

LABEL = "label = 'owl'"
CHANGES = {  # a column of item 2 -> what hides it from a question
    "label": "'owk'",
    "path": "'/photos/c'",
    "sha256": "'0'",
    "time": "'2025'",
    "json": "NULL",
}
QUESTIONS: dict[str, Callable[[Index], object]] = {
    "search": lambda index: index.search(ZERO, 2, where=LABEL),
    "ids": lambda index: index.search_ids(ZERO, 2, where=LABEL),
    "radius": lambda index: index.search_radius(ZERO[0], 9, where=LABEL),
    "matching": lambda index: index.matching(LABEL),
    "items": lambda index: list(index.items(LABEL)),
    "by path": lambda index: index.by_path(["/photos/2", "/photos/none"]),
    "by content": lambda index: index.by_content(["digest 2", "none"]),
}


def item(number: int) -> Item:
    code = number.to_bytes(BITS // 8, "big")
    return Item(f"/photos/{number}", code, "owl", f"digest {number}", json="{}")


@pytest.fixture
def filled(path: Path) -> Path:
    with Index.create(path, MODEL, BITS) as index:
        index.add(map(item, range(1, 9)))
    return path


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_item_is_told(column: str, question: str, filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute(f"UPDATE items SET {column} = {CHANGES[column]} WHERE id = 2")
    with Index.open(filled) as index:
        for _ in range(2):  # not only the first time
            with refused(IndexStoreError, r"is damaged \(item 2 is not what was added \(CRC\)\)"):
                QUESTIONS[question](index)


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_item_that_is_gone_is_told(question: str, filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute("DELETE FROM items WHERE id = 2")
    words = r"is damaged \(it holds 7 items and says 8\)|derived files"
    with Index.open(filled) as index, refused(IndexStoreError, words):
        QUESTIONS[question](index)


@pytest.mark.parametrize(
    "question", [name for name in QUESTIONS if name not in ("by path", "by content")]
)
def test_another_id_is_told(question: str, filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute("UPDATE items SET id = 9 WHERE id = 2")
    with Index.open(filled) as index, refused(IndexStoreError, "is damaged"):
        QUESTIONS[question](index)


@pytest.mark.parametrize("damage", ["label = CAST(label AS BLOB)", "crc = 'x'", "crc = NULL"])
def test_another_type_is_told(damage: str, filled: Path) -> None:
    column = "crc INTEGER NOT NULL" if "crc" in damage else "label TEXT"
    force(filled, column, f"UPDATE items SET {damage} WHERE id = 2")
    with Index.open(filled) as index, refused(IndexStoreError, "is damaged"):
        index.matching(LABEL)


def test_text_that_is_not_utf8_is_told(filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute("UPDATE items SET label = CAST(x'6f776cff' AS TEXT) WHERE id = 2")
    with Index.open(filled) as index, refused(IndexStoreError, "is damaged"):
        index.matching(LABEL)


@pytest.mark.parametrize(
    ("index_of", "question", "filtered"),
    [
        ("path", "by path", "path = '/photos/2'"),
        ("sha256", "by content", "sha256 = 'digest 2'"),
    ],
)
def test_sqlite_s_own_indexes_are_not_believed(
    index_of: str, question: str, filtered: str, filled: Path
) -> None:
    """One that does not know item 2 is as damage leaves it, or a bug."""
    with raw(filled) as connection:
        unique = "UNIQUE " if index_of == "path" else ""
        connection.execute(f"DROP INDEX items_{index_of}")
        connection.execute(
            f"CREATE {unique}INDEX items_{index_of} ON items ({index_of}) "
            f"WHERE {index_of} IS NOT NULL AND id <> 2"
        )
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' AND id <> 2', '')")
    with Index.open(filled) as index:
        with refused(IndexStoreError, rf"its index of {index_of} has lost item 2"):
            QUESTIONS[question](index)
        assert index.matching(filtered).tolist() == [2]
        assert [hit.id for hit in index.search(ZERO, 3, where=filtered)[0]] == [2]


def test_all_items_are_compared_once(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def is_text(crc: object, number: int, *values: object) -> bool:
        seen.append(number)
        return checksums.is_text(crc, number, *values)

    monkeypatch.setattr(integrity, "is_text", is_text)
    with Index.open(filled) as index:
        index.search(ZERO, 2)
        index.by_path(["/photos/2"])  # which is there
        index.matching(LABEL, checked=False)
        index.by_path(["/none"], checked=False)
        assert seen == []
        for question in QUESTIONS.values():
            question(index)
        assert sorted(map(int, map(str, seen))) == list(range(1, 9))
        seen.clear()
        index.add([item(20)])
        index.remove([3])
        for question in QUESTIONS.values():
            question(index)
        assert seen == [9]  # the new one


def test_without_the_check_an_answer_may_be_short(filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute("UPDATE items SET label = 'owk' WHERE id = 2")
    with Index.open(filled) as index:
        assert 2 not in index.matching(LABEL, checked=False)
        assert index.by_path(["/none"], checked=False) == {}


@contextlib.contextmanager
def hurt(path: Path, whole: bytes, chooser: random.Random) -> Iterator[None]:
    changed = bytearray(whole)
    changed[chooser.randrange(len(whole))] ^= 1 << chooser.randrange(8)
    database(path).write_bytes(changed)
    yield
    database(path).write_bytes(whole)


def test_a_flipped_bit_never_makes_a_filter_wrong(path: Path) -> None:
    chooser = random.Random(3)
    with Index.create(path, MODEL, BITS) as index:
        index.add(
            Item(f"/p/{n}", n.to_bytes(4, "big"), f"label {n % 5}", f"{n:064}", json=f'{{"n":{n}}}')
            for n in range(400)
        )
    questions: list[Callable[[Index], object]] = [
        lambda index: index.search(ZERO, 400, where="label = 'label 3'"),
        lambda index: index.search(ZERO, 400, where="path > '/p/2'"),
        lambda index: index.search(ZERO, 400, where="json ->> '$.n' > 200"),
        lambda index: index.matching("id between 100 and 300").tolist(),
        lambda index: index.by_path([f"/p/{n}" for n in range(380, 420)]),
        lambda index: index.by_content([f"{n:064}" for n in range(380, 420)]),
        len,
    ]
    with Index.open(path) as index:
        right = [each(index) for each in questions]
    whole, refusals = database(path).read_bytes(), 0
    for _ in range(300):
        with hurt(path, whole, chooser):
            try:
                with Index.open(path, lambda told: None) as index:
                    for each, answer in zip(questions, right, strict=True):
                        try:
                            assert each(index) == answer
                        except IndexStoreError:
                            refusals += 1
            except IndexStoreError:
                refusals += len(questions)
    assert 200 < refusals < 300 * len(questions)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("id INTEGER PRIMARY KEY,\n    code", "id INTEGFR PRIMARY KEY,\n    code"),
        ("label TEXT,\n", "labem TEXT,\n"),
        ("WHERE path IS NOT NULL", "WHERE path IS NOT  NULL"),
        ("last_id INTEGER NOT NULL", "last_ie INTEGER NOT NULL"),
    ],
)
def test_a_changed_schema_is_told(old: str, new: str, filled: Path) -> None:
    """A column of another name or kind reads undamaged rows wrongly."""
    whole = database(filled).read_bytes()
    assert whole.count(old.encode()) == 1
    database(filled).write_bytes(whole.replace(old.encode(), new.encode()[: len(old)]))
    with refused(IndexStoreError, "is damaged"):
        Index.open(filled)


def test_a_changed_state_is_told(filled: Path) -> None:
    for change in (
        "items = items + 1",
        "version = version + 1",
        "last_id = last_id - 1",
        "crc = crc + 1",
    ):
        with raw(filled) as connection:
            before = connection.execute("SELECT * FROM state").fetchone()
            connection.execute(f"UPDATE state SET {change}")
        with Index.open(filled) as index:
            uses: list[Callable[[Index], object]] = [
                len,
                Index.stats,
                Index.compact,
                lambda index: index.search(ZERO),
                lambda index: index.add([item(50)]),
                lambda index: index.add_codes(np.zeros((3, 4), np.uint8)),
                lambda index: index.remove([1]),
            ]
            for use in uses:
                with refused(IndexStoreError, r"is damaged \(its state was changed \(CRC\)\)"):
                    use(index)
        with raw(filled) as connection:
            marks = ", ".join("?" * len(before))
            connection.execute("DELETE FROM state")
            connection.execute(f"INSERT INTO state VALUES ({marks})", before)
    with Index.open(filled) as index:
        assert len(index) == 8
