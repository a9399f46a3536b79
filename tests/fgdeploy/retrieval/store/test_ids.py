"""Ids: 0 is one as any other, whole numbers of NumPy are whole numbers, and none is given twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.retrieval import Added, Index, Item
from fgdeploy.retrieval.store import derived, writing
from fgdeploy.retrieval.store.ids import IdSet, id_of
from fgdeploy.retrieval.store.schema import MAX_ID
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, brought_in

CODE = bytes(BITS // 8)


def items_of(ids: Iterable[Any]) -> list[Item]:
    return [Item(f"/{place}.jpg", CODE, id=number) for place, number in enumerate(ids)]


def held(index: Index) -> dict[str | None, int | None]:
    return {item.path: item.id for item in index.items()}


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("given", "got"),
    [
        (range(5), [0, 1, 2, 3, 4]),
        ([None, 1], [2, 1]),
        ([None, None, 1, 2, None], [3, 4, 1, 2, 5]),
        ([None, 100, None, 50], [1, 100, 101, 50]),
        ([0, None], [0, 1]),
        ([np.int64(7), np.uint8(3), None], [7, 3, 8]),
        ([MAX_ID - 1, None], [MAX_ID - 1, MAX_ID]),
    ],
)
def test_each_item_of_a_call_gets_an_id_of_its_own(
    given: Iterable[Any], got: list[Any], size: int, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BATCH", size)
    assert index.add(items_of(given)) == Added(new=len(got))
    assert [held(index)[f"/{place}.jpg"] for place in range(len(got))] == got
    assert index.add(items_of(given)) == Added(known=len(got))


def test_when_the_last_id_is_given_none_is_left(index: Index) -> None:
    index.add(items_of([MAX_ID - 1]))
    words = f"no id is left after {MAX_ID}; give the items ids of your own"
    with refused(IndexStoreError, words):
        index.add([Item(None, CODE), Item(None, CODE)])
    with refused(IndexStoreError, words):
        index.add_codes(np.zeros((2, BITS // 8), np.uint8))
    assert index.add_codes(ZERO) == Added(new=1)
    assert index.matching("1").tolist() == [MAX_ID - 1, MAX_ID]


def test_a_stream_whose_ids_come_too_late_loses_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BATCH", 2)
    words = r"^/2\.jpg: an item before it that gives no id got id 2; give all items ids or none"
    with refused(UsageError, words):
        index.add(iter(items_of([None, None, 2])))
    assert held(index) == {"/0.jpg": 1, "/1.jpg": 2}
    assert index.add(iter(items_of([None, None, 3]))) == Added(new=1, known=2)


def test_the_item_of_id_0_is_read_searched_changed_and_removed(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "TAIL_ROWS", 4)
    index.add([Item(f"/{n}", CODE, "owl" if n else None, f"s{n}", n) for n in (3, 0, 2, 1)])
    assert index.stats().segments
    for _ in range(2):  # by its segment, then by a compacted one
        assert [hit.id for hit in index.search(ZERO, 4)[0]] == [0, 1, 2, 3]
        assert [hit.id for hit in index.search_radius(ZERO[0], 0)] == [0, 1, 2, 3]
        assert index.search_ids(ZERO, 2)[0].tolist() == [[0, 1]]
        index.compact()
    assert [item.id for item in index.items()] == index.matching("1").tolist() == [0, 1, 2, 3]
    assert index.get([0, np.int64(3)]) == [*index.by_id([0]).values(), *index.get([3])]
    assert index.by_path(["/0"])["/0"].id == index.by_content(["s0"])["s0"].id == 0
    assert index.add([Item(None, b"\0\0\0\1", id=0)]) == Added(changed=1)
    assert [hit.id for hit in index.search(ZERO, 4)[0]] == [1, 2, 3, 0]
    assert index.verify() == [] or not [one for one in index.verify() if one.fatal]
    assert index.remove([np.int32(0)]) == 1
    assert index.add([Item("/new", CODE)]) == Added(new=1)
    assert held(index)["/new"] == 4


def test_id_0_goes_out_and_comes_back(index: Index, tmp_path: Path) -> None:
    from fgdeploy.retrieval.store.transfer import export_items

    index.add(items_of([0, 5]))
    assert export_items(index, tmp_path / "all.jsonl") == 2
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        assert brought_in(other, tmp_path / "all.jsonl") == Added(new=2)
        assert list(other.items()) == list(index.items())
        assert brought_in(other, tmp_path / "all.jsonl") == Added(known=2)


def test_codes_with_ids_of_numpy(index: Index) -> None:
    codes = np.zeros((3, BITS // 8), np.uint8)
    assert index.add_codes(codes, np.arange(3)) == Added(new=3)
    assert index.add_codes(codes, np.arange(3, dtype=np.uint64)) == Added(known=3)
    assert index.matching("1").tolist() == [0, 1, 2]
    for bad in (
        [True, False, True],
        np.zeros(3),
        np.array(["0", "1", "2"]),
        [0, 1, None],
        7,
        "abc",
    ):
        with refused(UsageError, "expected"):
            index.add_codes(codes, bad)  # type: ignore[arg-type]
    with refused(UsageError, rf"^id {2**63}: expected a whole number from 0 to {MAX_ID}"):
        index.add_codes(codes, [2**63, 0, 1])
    assert len(index) == 3


@pytest.mark.parametrize("number", [True, np.True_, 1.0, np.float32(1), "1", [1], -1, 2**63, b"1"])
def test_what_is_no_id(number: object) -> None:
    with refused(UsageError, "^id .*: expected a whole number from 0 to "):
        id_of(number)


@pytest.mark.parametrize("number", [-1, 10**30, 2**63, -(2**63), 10**4000])
def test_ids_that_no_item_can_have_are_unknown(number: int, index: Index) -> None:
    assert index.by_id([number]) == {}
    for use in (index.get, index.remove):
        with refused(IndexStoreError, "has no item .*; nothing was (read|removed)"):
            use([number])


NO_INDEX: list[Callable[[Index], object]] = [
    lambda index: index.add(Item("a", CODE)),  # type: ignore[arg-type]
    lambda index: index.add(None),  # type: ignore[arg-type]
    lambda index: index.add("a.jpg"),  # type: ignore[arg-type]
    lambda index: index.add(["a.jpg"]),  # type: ignore[list-item]
    lambda index: index.add([None]),  # type: ignore[list-item]
    lambda index: index.add({"a": 1}),  # type: ignore[arg-type]
    lambda index: index.add_codes(None),  # type: ignore[arg-type]
    lambda index: index.add_codes([b"1234"]),  # type: ignore[arg-type]
    lambda index: index.remove(5),  # type: ignore[arg-type]
    lambda index: index.remove(None),  # type: ignore[arg-type]
    lambda index: index.remove("15"),  # type: ignore[arg-type]
    lambda index: index.remove([True]),
    lambda index: index.get(5),  # type: ignore[arg-type]
    lambda index: index.get(["5"]),  # type: ignore[list-item]
    lambda index: index.by_id([1.0]),  # type: ignore[list-item]
    lambda index: index.by_path("a.jpg"),
    lambda index: index.by_path([Path("a.jpg")]),  # type: ignore[list-item]
    lambda index: index.by_path(None),  # type: ignore[arg-type]
    lambda index: index.by_content("abc"),
    lambda index: index.by_content([b"abc"]),  # type: ignore[list-item]
    lambda index: index.relabel(None),  # type: ignore[arg-type]
    lambda index: index.relabel(["a.jpg"]),  # type: ignore[arg-type]
    lambda index: index.relabel({"a.jpg": 7}),  # type: ignore[dict-item]
    lambda index: index.matching(None),  # type: ignore[arg-type]
    lambda index: list(index.items(5)),  # type: ignore[arg-type]
    lambda index: index.search(None),  # type: ignore[arg-type]
    lambda index: index.search("a.jpg"),  # type: ignore[arg-type]
    lambda index: index.search([CODE]),  # type: ignore[arg-type]
    lambda index: index.search(ZERO[0]),
    lambda index: index.search(ZERO, None),  # type: ignore[arg-type]
    lambda index: index.search(ZERO, True),
    lambda index: index.search(ZERO, threads=True),
    lambda index: index.search(ZERO, where="1", params=None),  # type: ignore[arg-type]
    lambda index: index.search_ids(None),  # type: ignore[arg-type]
    lambda index: index.search_radius(None, 3),  # type: ignore[arg-type]
    lambda index: index.search_radius("abc", 3),  # type: ignore[arg-type]
    lambda index: index.search_radius(ZERO[0], None),  # type: ignore[arg-type]
    lambda index: index.require(None, None),  # type: ignore[arg-type]
    lambda index: Index.open(None),  # type: ignore[arg-type]
    lambda index: Index.open(5),  # type: ignore[arg-type]
    lambda index: Index.create(None, MODEL, BITS),  # type: ignore[arg-type]
    lambda index: Index.create(index.path, None, BITS),  # type: ignore[arg-type]
    lambda index: Index.create(index.path.with_name("b.fgi"), None, BITS),  # type: ignore[arg-type]
    lambda index: Index.create(index.path.with_name("b.fgi"), MODEL, None),  # type: ignore[arg-type]
    lambda index: Index.create(index.path.with_name("b.fgi"), MODEL, True),
]


@pytest.mark.parametrize("use", NO_INDEX, ids=range(len(NO_INDEX)))
def test_arguments_of_another_type_are_refused_in_words(
    use: Callable[[Index], object], three: Index
) -> None:
    before = list(three.items())
    with pytest.raises((UsageError, IndexStoreError)) as caught:
        use(three)
    assert "damaged" not in str(caught.value)
    assert list(three.items()) == before


def test_sets_of_ids() -> None:
    found = IdSet([1, 2, 3, 7])
    assert found.add(5) is False
    assert found.add(0) is False
    assert [number for number in range(10) if number in found] == [0, 1, 2, 3, 5, 7]
    assert all(found.add(number) for number in (0, 1, 3, 5, 7))
    assert 2**70 not in IdSet([MAX_ID])
