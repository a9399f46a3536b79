"""A filter says to PostgreSQL what it says to an index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from fgdeploy.core.errors import UsageError
from fgdeploy.remote.filter_tree import parse
from fgdeploy.remote.postgres_filter import PostgresFilter
from fgdeploy.retrieval import Index
from tests.checks import examples
from tests.fgdeploy.remote import filter_samples
from tests.fgdeploy.remote.postgres_server import PostgresOfTests


@pytest.fixture(scope="module")
def both(
    postgres: PostgresOfTests, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Index, Any]]:
    """Give an index and a connection to a table, with the same items."""
    import psycopg

    items = filter_samples.items()
    path: Path = tmp_path_factory.mktemp("filters") / "gallery.fgi"
    with Index.create(path, "ab" * 32, 64) as index:
        index.add(items)
        with psycopg.connect(postgres.address, autocommit=True) as connection:
            columns = "id bigint, path text, label text, sha256 text, time text, json text"
            connection.execute(f"CREATE TEMP TABLE items ({columns})")
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO items VALUES (%s, %s, %s, nullif(%s, ''), %s, %s)",
                    [(i.id, i.path, i.label, i.sha256, i.time, i.json) for i in index.items()],
                )
            yield index, connection


@given(where=filter_samples.EXPRESSIONS)
@examples(1500)
def test_finds_the_ids_that_an_index_finds(both: tuple[Index, Any], where: str) -> None:
    index, connection = both
    try:
        condition = PostgresFilter(parse(where))
    except UsageError as error:
        assert re.search(r"has no equal meaning on|pattern|must be", str(error))
        return
    query = f"SELECT id FROM items WHERE {condition.sql} ORDER BY id"
    found = [row[0] for row in connection.execute(query, condition.params)]
    assert found == index.matching(where).tolist()


@pytest.mark.parametrize("value", ["'; DROP TABLE items; --", "%s", "%(a)s", "\\", "owl' OR 1=1"])
def test_a_value_is_never_part_of_the_statement(both: tuple[Index, Any], value: str) -> None:
    for where in ("label = ?", "path LIKE ?", "label IN (?)", "instr(path, ?) = 1", "label GLOB ?"):
        condition = PostgresFilter(parse(where, [value]))
        assert value == "%s" or value not in condition.sql
        assert condition.sql.count("%s") == len(condition.params)
        query = f"SELECT id FROM items WHERE {condition.sql} ORDER BY id"
        found = [row[0] for row in both[1].execute(query, condition.params)]
        assert found == both[0].matching(where, [value]).tolist()


@pytest.mark.parametrize(
    ("where", "labels"),
    [
        ("label LIKE 'A!_B' ESCAPE '!'", {"a_b"}),
        ("label GLOB 'a_b'", {"a_b"}),
        ("label LIKE 'a!%b' ESCAPE '!'", {"a%b"}),
        ("label GLOB 'a%b' OR label GLOB '[[]a]'", {"a%b", "[a]"}),
        ("label GLOB 'a[*]b'", {"a*b"}),
        ("label LIKE 'a\\b'", {"a\\b"}),
        ("label = 'ÖWL' OR lower(label) = 'Öwl'", {"ÖWL"}),
    ],
)
def test_signs_of_patterns_stand_for_themselves(
    both: tuple[Index, Any], where: str, labels: set[str]
) -> None:
    condition = PostgresFilter(parse(where))
    found = both[1].execute(f"SELECT label FROM items WHERE {condition.sql}", condition.params)
    assert {row[0] for row in found} == labels
    assert {item.label for item in both[0].items(where)} == labels
