"""Filters in SQL: what they may say, and that nothing else can be done with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.where import Params, matching_ids
from tests.checks import examples, refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, database

CODE = bytes(BITS // 8)
ITEMS = [
    Item("/a/owl 1.jpg", CODE, "owl", "s1", 1, "2026-01-01T00:00:00+00:00", '{"n": 1, "b": [7]}'),
    Item("/a/owl 2.jpg", CODE, "owl", "s2", 2, "2026-02-01T00:00:00+00:00", '{"n": 20}'),
    Item("/b/it's.jpg", CODE, "moth", "", 5, "2026-03-01T00:00:00+00:00"),
    Item("/b/100%.jpg", CODE, 'say "hm"', "s4", 6, "2026-03-01T12:00:00+00:00", '{"n": null}'),
    Item(None, CODE, None, "", 9, "2027-01-01T00:00:00+00:00"),
]


@pytest.fixture
def five(index: Index) -> Index:
    index.add(ITEMS)
    return index


@pytest.mark.parametrize(
    ("where", "params", "ids"),
    [
        ("label = 'owl'", (), [1, 2]),
        ("label == 'owl' AND id > 1", (), [2]),
        ("label <> 'owl'", (), [5, 6]),
        ("LABEL = 'OWL' COLLATE NOCASE", (), [1, 2]),
        ("not label = 'owl' or id = 1", (), [1, 5, 6]),
        ("path like '/a/%'", (), [1, 2]),
        (r"path like '%100\%.jpg' escape '\'", (), [6]),
        ("path glob '/b/*'", (), [5, 6]),
        ("label in ('owl', 'moth')", (), [1, 2, 5]),
        ("id in (9, 2, 77)", (), [2, 9]),
        ("id between 2 and 6", (), [2, 5, 6]),
        ("path is null", (), [9]),
        ("label is not null", (), [1, 2, 5, 6]),
        ("sha256 is null", (), [5, 9]),
        ("sha256 = 's4'", (), [6]),
        ("json is null", (), [5, 9]),
        ("time >= '2026-03' and time < '2027'", (), [5, 6]),
        ("json_extract(json, '$.n') > 1", (), [2]),
        ("json_extract(json, '$.b[0]') = 7", (), [1]),
        ("json ->> '$.n' = 1", (), [1]),
        ("json_type(json, '$.n') = 'null'", (), [6]),
        ("label = ?", ("owl",), [1, 2]),
        ("label = ? and id > ?", ("owl", 1), [2]),
        ("path LIKE ?", ("%owl%",), [1, 2]),
        ("label GLOB :what and id > 0", {"what": "ow?"}, [1, 2]),
        ("label = :what", {"what": "moth"}, [5]),
        ("path = '/b/it''s.jpg'", (), [5]),
        ("path = ?", ("/b/it's.jpg",), [5]),
        ("label = 'say \"hm\"'", (), [6]),
        ("\"label\" = 'owl'", (), [1, 2]),
        ("[label] = 'owl' and `id` = 1", (), [1]),
        ("items.label = 'owl'", (), [1, 2]),
        ("label = 'a;b' or label = '--' or label = '/*' or label = '('", (), []),
        ("(label = 'owl') and (id = 1 or (id = 2))", (), [1, 2]),
        ("length(label) = 4 and upper(label) = 'MOTH'", (), [5]),
        ("instr(path, 'owl') > 0", (), [1, 2]),
        ("coalesce(label, 'none') = 'none'", (), [9]),
        ("case when id < 5 then 1 else 0 end", (), [1, 2]),
        ("abs(id - 5) <= 1", (), [5, 6]),
        ("max(id, 5) = 5", (), [1, 2, 5]),
        ("date(time) = '2026-03-01'", (), [5, 6]),
        ("strftime('%Y', time) = '2027'", (), [9]),
        ("label\n=\n'moth'", (), [5]),
        ("true", (), [1, 2, 5, 6, 9]),
        ("0", (), []),
        ("label", (), []),
        ("rowid = 2", (), [2]),
        ("id = ?", (True,), [1]),
        ("id = ?", (None,), []),
    ],
)
def test_what_filters_may_say(where: str, params: Params, ids: list[int], five: Index) -> None:
    found = five.search(ZERO, 10, where=where, params=params)[0]
    assert [hit.id for hit in found] == ids
    assert [hit.id for hit in five.search_radius(ZERO[0], 0, where=where, params=params)] == ids
    assert five.search_ids(ZERO, 10, where=where, params=params)[0].tolist() == [ids]


REFUSED = [
    "",
    " \n ",
    "1;",
    "1; DROP TABLE items",
    "1; DELETE FROM items; --",
    "label = 'owl' -- and no more",
    "label = 'owl' /* and no more */",
    "label = 'owl' /*",
    "(label = 'owl'",
    "label = 'owl')",
    "1) OR (1",
    "1) UNION SELECT 1 --",
    "1) UNION SELECT id FROM items WHERE (1",
    "1 UNION SELECT 1",
    "id IN (SELECT id FROM items)",
    "EXISTS (SELECT 1)",
    "id = (SELECT max(id) FROM items)",
    "(SELECT value FROM meta) = '1'",
    "id IN meta",
    "id IN items",
    "id IN sqlite_master",
    "id IN json_each('[1]')",
    "id IN (VALUES (1))",
    "sqlite_master.name = 'x'",
    "(WITH x AS (SELECT 1) SELECT * FROM x)",
    "PRAGMA user_version",
    "1 IN pragma_table_info",
    "ATTACH 'x' AS y",
    "DELETE FROM items",
    "DROP TABLE items",
    "INSERT INTO items DEFAULT VALUES",
    "UPDATE items SET label = 1",
    "VACUUM",
    "load_extension('x')",
    "randomblob(1000000000)",
    "zeroblob(1000000000)",
    "hex(zeroblob(10))",
    "writefile('x', 'y')",
    "readfile('/etc/hostname') = ''",
    "edit('x')",
    "fts3_tokenizer('x')",
    "sqlite_version() > '0'",
    "changes() = 0",
    "random() > 0",
    "printf('%1000000000d', 1)",
    "code = x'00000000'",
    "items.code IS NOT NULL",
    "crc > 0",
    '"code" = 1',
    "[crc] = 1",
    "labl = 'owl'",
    '"owl" = label',
    'label = "owl"',
    "`owl` = label",
    "label = 'owl",
    "label = ''owl'",
    'label = "owl',
    "label = `owl",
    "label = [owl",
    "label = 'a\0b'",
    "count(*) > 1",
    "sum(id)",
    "max(id)",
    "group_concat(label)",
    "row_number() OVER () = 1",
    "max(id) OVER ()",
    "1 LIMIT 1",
    "1 LIMIT 1 OFFSET 1",
    "1 ORDER BY id",
    "1 GROUP BY id",
    "RAISE(ABORT, 'x')",
    "label MATCH 'owl'",
    "label REGEXP 'owl'",
    "label ==",
    "time < CURRENT_TIMESTAMP",
    "= label",
    "label = owl",
    "like(label)",
    "sqlite_master",
    "*",
    "json_extract('{', '$')",
]


@pytest.mark.parametrize("where", REFUSED)
def test_what_is_refused(where: str, five: Index) -> None:
    before = database(five.path).read_bytes()
    with refused(UsageError, "^--where "):
        five.search(ZERO, 3, where=where)
    with refused(UsageError, "^--where "):
        five.search_radius(ZERO[0], 3, where=where)
    assert database(five.path).read_bytes() == before
    assert [hit.id for hit in five.search(ZERO, 10)[0]] == [1, 2, 5, 6, 9]
    assert [hit.id for hit in five.search(ZERO, 10, where="label = 'moth'")[0]] == [5]
    five.add([Item("/z.jpg", CODE)])  # no authoriser is left over
    assert [item.path for item in five.items()][-1] == "/z.jpg"


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("label = ?", ()),
        ("label = ?", ("owl", "moth")),
        ("label = 'owl'", ("owl",)),
        ("label = :what", {}),
        ("label = :what", {"other": 1}),
        ("label = :what", ("owl",)),
        ("label = ?", {"what": 1}),
        ("label = ?", (object(),)),
        ("label = ?", (["owl"],)),
        ("id = ?", (1 << 64,)),
        ("label = ?", 7),
    ],
)
def test_values_that_do_not_fit(where: str, params: object, five: Index) -> None:
    with refused(UsageError, "^--where "):
        five.search(ZERO, 3, where=where, params=params)  # type: ignore[arg-type]
    assert len(five.search(ZERO, 3, where="id = ?", params=(1,))[0]) == 1


@pytest.mark.parametrize("where", [7, b"1", ["1"]])
def test_a_filter_that_is_no_text(where: object, five: Index) -> None:
    with refused(UsageError, "expected an expression"):
        five.search(ZERO, 3, where=where)  # type: ignore[arg-type]


def test_a_filter_sees_changes_of_other_items(five: Index) -> None:
    def owls() -> list[int]:
        return [hit.id for hit in five.search(ZERO, 10, where="label = 'owl'")[0]]

    assert owls() == [1, 2]
    five.relabel({"/b/it's.jpg": "owl"})
    assert owls() == [1, 2, 5]
    five.remove([1])
    assert owls() == [2, 5]


def test_a_filter_on_the_time_of_the_query_is_evaluated_anew(
    five: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []

    def counted(*args: object) -> object:
        evaluated.append(args[1])
        return matching_ids(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("fgdeploy.retrieval.store.querying.matching_ids", counted)
    for where in ("time < datetime('now')", "time < DATETIME ()", "time < date()"):
        for _ in range(2):
            five.search(ZERO, 3, where=where)
        assert evaluated == [where] * 2
        evaluated.clear()
    for _ in range(2):
        five.search(ZERO, 3, where="time < '2030'")
    assert evaluated == ["time < '2030'"]


def test_a_filter_that_takes_too_long_is_given_up(index: Index) -> None:
    index.add_codes(np.zeros((5000, ZERO.shape[1]), np.uint8))
    where = "length(id) > 0"
    for seconds, found in ((None, 5000), (60.0, 5000)):
        index.filters.seconds = seconds
        assert len(index.matching(where)) == found
    index.filters.seconds = -1.0
    with refused(UsageError, "length.*it takes too long here"):
        index.matching(where)
    with refused(UsageError, "it takes too long here"):
        index.search(ZERO, 3, where=where)
    assert len(index.search(ZERO, 3)[0]) == 3


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index.create(tmp_path_factory.mktemp("where") / "gallery.fgi", MODEL, BITS) as index:
        index.add(ITEMS)
        yield index


WORDS = [
    *("id", "path", "label", "json", "code", "crc", "items", "meta", "sqlite_master", "owl"),
    *("'", "''", '"', "`", "[", "]", "(", ")", ";", "--", "/*", "*/", "\0", "\n", " ", ","),
    *("=", "<", "||", "+", "?", ":a", "1", "0x7", "1e9", "x'00'", "NULL", "is", "not", "in", "or"),
    *("SELECT", "FROM", "UNION", "WHERE", "DROP TABLE items", "DELETE FROM items", "COMMIT"),
    *("PRAGMA", "ATTACH", "VALUES", "LIMIT", "max", "replace", "abs", "like", "OVER", "CASE"),
]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=40)


@settings(examples(500), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=texts, params=st.sampled_from([(), ("owl",), {"a": 1}]))
@example(where="1) OR (1", params=())
@example(where="\ud800", params=())
def test_any_text_gives_ids_or_is_refused(where: str, params: Params, kept: Index) -> None:
    before = database(kept.path).read_bytes()
    with contextlib.suppress(UsageError):
        found = kept.search_ids(ZERO, 10, where=where, params=params)[0]
        assert set(found[0].tolist()) <= {1, 2, 5, 6, 9}
    assert database(kept.path).read_bytes() == before
    assert {entry.name for entry in Path(kept.path).iterdir()} <= {"index.sqlite", "write.lock"}
    assert kept.search_ids(ZERO, 10)[0].tolist() == [[1, 2, 5, 6, 9]]


@pytest.mark.parametrize(
    ("where", "value"),
    [("id = ?", np.int64(2)), ("id < ?", np.float32(2.5)), ("label = ?", np.str_("owl"))],
)
def test_values_of_numpy_are_compared_as_pythons(where: str, value: Any, five: Index) -> None:
    found = [hit.id for hit in five.search(ZERO, 9, where=where, params=(value,))[0]]
    assert found == [hit.id for hit in five.search(ZERO, 9, where=where, params=[value.item()])[0]]
    assert found
    assert five.matching(where, np.array([value])).tolist() == sorted(found)


@pytest.mark.parametrize(
    "value", [b"owl", bytearray(b"owl"), np.arange(2), datetime(2026, 1, 31, tzinfo=timezone.utc)]
)
def test_values_that_could_equal_nothing_are_refused(value: object, five: Index) -> None:
    with refused(UsageError, "expected text, a number or None as a value, got"):
        five.search(ZERO, 3, where="label = ?", params=(value,))
    with refused(UsageError, "expected its values in a list, got owl"):
        five.search(ZERO, 3, where="label = ?", params="owl")


@pytest.mark.parametrize(
    "where", ["label = '" + "x" * 160_000, "x" * 160_000, 'label = "' + "x" * 160_000 + '"']
)
def test_a_message_shows_little_of_a_long_filter(where: str, five: Index) -> None:
    with pytest.raises(UsageError, match="columns are id, path") as caught:
        five.matching(where)
    assert len(str(caught.value)) < 700
