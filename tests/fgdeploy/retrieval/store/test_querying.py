"""Searching an index: order, ties, and changes that are seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.codes import hamming
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval import Hit, Index, Item
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import MODEL, ZERO, photo

# Searching


def test_answers_are_ordered_by_distance_and_id(three: Index) -> None:
    three.add([photo("d", 0b10), photo("e", 0b1)])
    a, b, c, d, e = (item.id for item in three.items())
    assert three.search(ZERO, 4) == [
        [
            Hit(1, 1, a, "/photos/a", None),
            Hit(2, 1, d, "/photos/d", None),
            Hit(3, 1, e, "/photos/e", None),
            Hit(4, 2, b, "/photos/b", "moth"),
        ]
    ]
    assert [hit.id for hit in three.search(ZERO)[0]] == [a, d, e, b, c]
    assert [hit.id for hit in three.search_radius(ZERO[0], 1)] == [a, d, e]
    assert [hit.rank for hit in three.search_radius(ZERO[0], 3)] == [1, 2, 3, 4, 5]
    assert three.search_radius(ZERO[0], 0) == []


def test_many_queries_in_one_call(three: Index) -> None:
    queries = np.array([[0, 0, 0, 7], [0, 0, 0, 1], [255, 255, 255, 255]], np.uint8)
    answers = three.search(queries, 1)
    assert [[Path(hit.path).name for hit in hits] for hits in answers] == [["c"], ["a"], ["c"]]
    assert [hits[0].distance for hits in answers] == [0, 0, 29]
    assert three.search(queries[:0], 1) == []


@pytest.mark.parametrize("bits", [8, 12, 32, 63, 512])
def test_answers_against_all_distances(bits: int, tmp_path: Path) -> None:
    chooser = np.random.default_rng(bits)
    codes = np.packbits(chooser.random((80, bits)) < 0.1, axis=1)
    queries = np.packbits(chooser.random((5, bits)) < 0.1, axis=1)
    with Index.create(tmp_path / "gallery.fgi", MODEL, bits) as index:
        index.add(Item(str(n), code.tobytes(), None, "") for n, code in enumerate(codes))
        gone = chooser.choice([item.id for item in index.items()], 30, replace=False)
        index.remove([int(number) for number in gone])
        kept = list(index.items())
        gaps = hamming(queries, np.stack([np.frombuffer(i.code, np.uint8) for i in kept]))
        for query, gap, hits in zip(queries, gaps, index.search(queries, 20), strict=True):
            order = sorted((int(d), item.id) for d, item in zip(gap, kept, strict=True))
            assert [(hit.distance, hit.id) for hit in hits] == order[:20]
            near = [pair for pair in order if pair[0] <= bits // 8]
            found = index.search_radius(query, bits // 8)
            assert [(hit.distance, hit.id) for hit in found] == near


def test_own_changes_are_seen_by_the_next_search(three: Index) -> None:
    def nearest() -> tuple[str, int]:
        hit = three.search(ZERO, 1)[0][0]
        return Path(hit.path).name, hit.distance

    assert nearest() == ("a", 1)
    three.add([photo("d", 0)])
    assert nearest() == ("d", 0)
    three.add([photo("d", 0xFFFF)])
    assert nearest() == ("a", 1)
    three.remove([three.search(ZERO, 1)[0][0].id])
    assert nearest() == ("b", 2)


def test_changes_of_another_connection_are_seen_by_the_next_search(
    three: Index, path: Path
) -> None:
    assert len(three.search(ZERO, 10)[0]) == 3
    with Index.open(path) as other:
        other.add([photo("d", 0)])
        assert [Path(hit.path).name for hit in three.search(ZERO, 2)[0]] == ["d", "a"]
        other.add([photo("d", 0xFF)])  # same id, another code
        assert [hit.distance for hit in three.search(ZERO, 10)[0]] == [1, 2, 3, 8]
        other.remove([item.id for item in other.items()])
        assert three.search(ZERO, 10) == [[]]


def test_a_change_that_is_not_committed_is_not_seen(three: Index, path: Path) -> None:
    def slowly() -> Iterator[Item]:
        yield photo("d", 0)
        assert [Path(hit.path).name for hit in three.search(ZERO, 1)[0]] == ["a"]
        assert len(three) == 3

    with Index.open(path) as other:
        other.add(slowly())
    assert [Path(hit.path).name for hit in three.search(ZERO, 1)[0]] == ["d"]


@pytest.mark.parametrize("k", [0, -3])
def test_fewer_than_one_answer(k: int, three: Index) -> None:
    with refused(UsageError, rf"k is {k}; expected at least one result"):
        three.search(ZERO, k)


def test_queries_of_another_width(three: Index) -> None:
    words = "queries have 8 bytes, codes 4; hash both with the same model"
    with refused(UsageError, words):
        three.search(np.zeros((1, 8), np.uint8))
    with refused(UsageError, words):
        three.search_radius(np.zeros(8, np.uint8), 3)
