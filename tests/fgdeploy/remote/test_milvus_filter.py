"""Filters mean on Milvus what they mean to the index, or are refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given

from fgdeploy.core.errors import UsageError
from fgdeploy.remote import milvus_table
from fgdeploy.remote.adapters import table_at
from fgdeploy.remote.milvus_filter import milvus_expression
from fgdeploy.remote.milvus_table import MilvusTable
from fgdeploy.remote.pushing import push
from fgdeploy.retrieval import Index
from tests.checks import examples, refused
from tests.fgdeploy.remote import filter_samples

WRITTEN = [
    "label = 'owl' and time > '2026-01-31'",
    "label IS NULL OR path IS NOT NULL",
    "NOT (label = '' OR id > 10)",
    "label NOT IN ('owl', '', 'a\\b') AND id NOT IN (1, 2, -9)",
    "path GLOB '/o*' OR label GLOB 'say \"*'",
    "time LIKE '2026-0%' OR time NOT LIKE '202%'",
    "id > 3 AND json IS NOT NULL",
    "label >= 'z' OR label < '5'",
    "sha256 = '' OR sha256 IS NULL",
    "label = 'line\nbreak' OR label = 'tab\t'",
    "0",
    "id < 1e30",
]


@pytest.fixture(scope="module", params=["server", "lite"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Index, MilvusTable]]:
    """Give an index and a table, with the same items."""
    folder = tmp_path_factory.mktemp("filters")
    if request.param == "lite":
        pytest.importorskip("milvus_lite", exc_type=ImportError)
        address = f"milvus+lite://{folder}/filters.db/filters"
    else:
        address = f"{request.getfixturevalue('milvus').address}/filters"
    with Index.create(folder / "gallery.fgi", "ab" * 32, 64) as index:
        index.add(filter_samples.items())
        table = table_at(address)
        assert isinstance(table, MilvusTable)
        with table:
            push(index, table)
            yield index, table


def _ids(table: MilvusTable, expression: str) -> list[int]:
    found = table._query(expression, ["id"], limit=1000)
    return sorted(one["id"] for one in found)


@pytest.mark.parametrize("where", WRITTEN)
def test_what_is_written_means_the_same(both: tuple[Index, MilvusTable], where: str) -> None:
    index, table = both
    expression = milvus_expression(where, ())
    if expression == "":
        assert len(index.matching(where)) == len(index)
        return
    assert _ids(table, expression) == index.matching(where).tolist(), expression


@given(where=filter_samples.EXPRESSIONS)
@examples(300)
def test_any_filter_means_the_same_or_is_refused(
    both: tuple[Index, MilvusTable], where: str
) -> None:
    index, table = both
    try:
        expected = index.matching(where).tolist()
    except UsageError:
        with pytest.raises(UsageError):
            milvus_expression(where, ())
        return
    try:
        expression = milvus_expression(where, ())
    except UsageError as error:
        assert "has no equal meaning on Milvus" in str(error)
        return
    found = _ids(table, expression) if expression else [row.id for row in index.items()]
    assert found == expected, (where, expression)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("lower(label) = 'owl'", r"lower\(\)"),
        ("label = path", "a comparison of two columns"),
        ("label LIKE 'ow%'", "LIKE .* whose letters may be small or capital,"),
        ("label LIKE '%5'", "a pattern with more than one % or . at its end"),
        ("id % 3 = 1", "%"),
    ],
)
def test_what_milvus_does_not_have_is_named(where: str, what: str) -> None:
    with refused(UsageError, f"{what} has no equal meaning on Milvus"):
        milvus_expression(where, ())


def test_what_a_server_does_not_take_is_refused_by_its_words(
    both: tuple[Index, MilvusTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, table = both
    codes = np.frombuffer(next(index.items()).code, np.uint8)[None]
    monkeypatch.setattr(milvus_table, "milvus_expression", lambda where, params: "id ~~ 5")
    with refused(UsageError, "--where 'id > 5': the server does not take it"):
        table.nearest(codes, 9, "id > 5", ())
