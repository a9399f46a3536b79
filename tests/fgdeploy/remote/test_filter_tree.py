"""A filter's tree says of each item what SQLite says, or is refused by name."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given

from fgdeploy.core.errors import UsageError
from fgdeploy.remote import filter_nodes as nodes
from fgdeploy.remote.filter_tree import parse
from fgdeploy.retrieval import Item
from fgdeploy.retrieval.store.schema import TABLES
from fgdeploy.retrieval.store.where import Params, matching_ids
from tests.checks import examples, refused
from tests.fgdeploy.remote import filter_samples

_ITEMS = filter_samples.items()


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    """Give a database that holds the items as an index does."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        connection.executemany(
            "INSERT INTO items VALUES (?, ?, 0, ?, ?, nullif(?, ''), ?, ?)",
            [(i.id, i.code, i.path, i.label, i.sha256, i.time, i.json) for i in _ITEMS],
        )
        yield connection


def _value(term: nodes.Term, item: Item) -> int | str | None:
    if isinstance(term, nodes.Column):
        found: int | str | None = getattr(item, term.name)
        return (found or None) if term.name == "sha256" else found
    of, given = _value(term.of, item), term.arguments
    if of is None:
        return str(given[0]) if term.name == "coalesce" else None
    match term.name, of, given:
        case "lower", str(), ():
            return re.sub("[A-Z]", lambda found: found[0].lower(), of)
        case "upper", str(), ():
            return re.sub("[a-z]", lambda found: found[0].upper(), of)
        case "length", str(), ():
            return len(of)
        case "substr", str(), (int(start),):
            return of[start - 1 :]
        case "substr", str(), (int(start), int(count)):
            return of[start - 1 : start - 1 + count]
        case "instr", str(), (str(text),):
            return of.find(text) + 1
        case "coalesce", str(), _:
            return of
        case "%", int(), (int(by),):
            return (abs(of) % abs(by)) * (1 if of >= 0 else -1)
    raise AssertionError(term)


def _holds(node: nodes.Node, item: Item) -> bool:
    match node:
        case nodes.Always(holds):
            return holds
        case nodes.AllOf(parts):
            return all(_holds(part, item) for part in parts)
        case nodes.AnyOf(parts):
            return any(_holds(part, item) for part in parts)
        case nodes.Missing(term, negated):
            return (_value(term, item) is None) != negated
    value = _value(node.term, item)
    if value is None:
        return False
    match node:
        case nodes.Among(_, values, negated):
            return (value in values) != negated
        case nodes.Like(_, pattern, ignores_case, negated):
            assert isinstance(value, str)
            parts = [
                re.escape(part) if isinstance(part, str) else ".*" if part.run else "."
                for part in pattern
            ]
            flags = re.DOTALL | (re.IGNORECASE | re.ASCII if ignores_case else 0)
            return (re.fullmatch("".join(parts), value, flags) is not None) != negated
        case nodes.Compared(_, operator, other):
            right = _value(other, item) if isinstance(other, nodes.Term) else other
            return right is not None and _ordered(value, operator, right)


def _ordered(left: int | str, operator: str, right: int | str) -> bool:
    assert type(left) is type(right)
    a, b = (side.encode() if isinstance(side, str) else side for side in (left, right))
    less, equal = a < b, a == b  # type: ignore[operator]
    return {
        "=": equal,
        "<>": not equal,
        "<": less,
        "<=": less or equal,
        ">": not (less or equal),
        ">=": not less,
    }[operator]


def _agree(sqlite: sqlite3.Connection, where: str, params: Params = ()) -> None:
    tree = parse(where, params)
    expected = matching_ids(sqlite, where, params).tolist()
    assert sorted(i.id for i in _ITEMS if i.id is not None and _holds(tree, i)) == expected


@given(where=filter_samples.EXPRESSIONS)
@examples(3000)
def test_says_of_each_item_what_sqlite_says(sqlite: sqlite3.Connection, where: str) -> None:
    try:
        parse(where)
    except UsageError as error:
        assert re.search(r"has no equal meaning on|pattern|must be", str(error))
        return
    _agree(sqlite, where)


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("label = ? OR path = ?", ["owl", "/5/15"]),
        ("label = ?2 OR path = ?1", ["/5/15", "owl"]),
        ("id > ?2 AND id < ?", [0, 3, 100]),
        ("label = :a OR id IN (@b, $b, 7)", {"a": "owl", "b": 5}),
        ("label IN (?, ?)", [None, True]),
        ("id = ?", [float("nan")]),
        ("time > datetime('now', '-100 years')", ()),
        ("time BETWEEN '2021' AND '2024' AND NOT label LIKE 'o%'", ()),
        ("label IS NOT NULL AND label IS NOT 'owl'", ()),
        ("label <> path AND label >= 'a'", ()),
        ("label IS sha256", ()),
        ("not label is not sha256", ()),
        ("label LIKE 'a!' ESCAPE '!' OR NOT label LIKE 'a!' ESCAPE '!'", ()),
        (" OR ".join(f"id = {number}" for number in range(300)), ()),
    ],
)
def test_says_what_filters_that_people_write_say(
    sqlite: sqlite3.Connection, where: str, params: Params
) -> None:
    _agree(sqlite, where, params)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("strftime('%Y', time) = '2026'", r"strftime\(\) has no equal meaning on Milvus; columns"),
        ("json_extract(json, '$.a') = 1", r"json_extract\(\) has no equal meaning on Milvus"),
        ("json ->> '$.a' = 1", "->> has no equal meaning"),
        ("label", "text as a condition has no"),
        ("id = label", "a comparison of text with a number that is no constant has"),
        ("id LIKE '1%'", "LIKE with a number has"),
        ("label LIKE path", "LIKE with a pattern that is no constant has"),
        ("label GLOB '[a-c]*'", r"\[...\] in GLOB has"),
        ("label COLLATE nocase = 'OWL'", "COLLATE has"),
        ("CASE WHEN id THEN 1 ELSE 0 END", "CASE has"),
        ("CAST(id AS TEXT) = '5'", "CAST has"),
        ("id + 1 = 5", r"\+ has"),
        ("id IS TRUE", "IS TRUE has"),
        ("(label = 'a') = 1", "= has"),
        ("rowid = 3", "ROWID has"),
        ("'owl' IN (label, path)", "a constant in this place has"),
        ("label IN (path, 'a')", "a list of more than constants after IN has"),
        ("label = x'00'", "X has"),
        ("substr(label, -1) = 'a'", r"substr\(\) has"),
        ("label LIKE 'a' ESCAPE 'ab'", "ESCAPE expression must be a single character"),
        ("abs(-9223372036854775808) = id", "integer overflow"),
        ("+label = 5", r"\+ has"),
        # what the index refuses itself, in its words
        ("", "expected an expression"),
        ("name = 'a'", "no such column: name; columns are"),
        ("id = 1; DELETE FROM items", "is not allowed in it"),
        ("id = (SELECT 1)", "is not allowed in it"),
        ("random() > 0", "it may read columns and call plain functions, nothing else"),
        ("label = :a", "its names need values by name"),
        ("'a", "a quote is not closed"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(where: str, words: str) -> None:
    with refused(UsageError, words):
        parse(where, server="Milvus")


def test_text_that_no_server_keeps_and_deep_nesting_are_refused() -> None:
    with refused(UsageError, "a text with the character NUL has no equal meaning on Milvus"):
        parse("label = ?", ["a\0b"], "Milvus")
    with refused(UsageError, "nested too deeply|Expression tree is too large|parser stack"):
        parse("(" * 400 + "id = 1" + ")" * 400, server="Milvus")


def test_nothing_is_left_of_parts_that_say_nothing() -> None:
    assert parse("1 = 1 AND id IS NOT NULL") == nodes.ALL
    assert parse("label = NULL OR 0") == nodes.NONE
    assert parse("NOT (label = NULL)") == nodes.NONE
    assert parse("1 AND label = 'a'") == nodes.Compared(nodes.Column("label"), "=", "a")
