"""The worst classes against plain loops; their file, whole and damaged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.errors import DataError
from fgdeploy.evaluation.metrics import evaluate_in_detail
from fgdeploy.evaluation.worst_classes import (
    ANSWERS,
    CLASSES,
    QUERIES,
    CodedPhotos,
    find_worst,
    read_failures,
    write_failures,
)
from tests.checks import examples, refused


def _drawn(count: int, classes: int, seed: int, side: str) -> CodedPhotos:
    chooser = np.random.default_rng(seed)
    labels = np.array([f"kind {one}" for one in chooser.integers(0, classes, count)])
    codes = chooser.integers(0, 256, (count, 2)).astype(np.uint8)
    codes[:, 0] &= 7  # so that distances tie
    return CodedPhotos(codes, labels, [f"/{side}/{row}.jpg" for row in range(count)])


@examples(60)
@given(st.integers(2, 20), st.integers(2, 30), st.integers(0, 2**32 - 1), st.booleans())
def test_worst_classes_are_those_of_plain_loops(
    asking: int, stored: int, seed: int, same_set: bool
) -> None:
    queries, gallery = _drawn(asking, 4, seed, "q"), _drawn(stored, 4, seed + 1, "g")
    held = queries if same_set else gallery
    detail = evaluate_in_detail(
        queries.codes, queries.labels, held.codes, held.labels, same_set, (1,)
    )
    found = find_worst(queries, None if same_set else gallery, detail.classes)
    maps = {one.name: one.map for one in detail.classes if one.map < 1}
    assert [one.name for one in found] == sorted(maps, key=lambda name: (maps[name], name))
    for one in found:
        firsts: Counter[str] = Counter()
        for row in np.flatnonzero(queries.labels == one.name).tolist():
            ranked = sorted(
                (bin(int.from_bytes(bytes(queries.codes[row] ^ code), "big")).count("1"), place)
                for place, code in enumerate(held.codes)
                if not (same_set and place == row)
            )
            wrong = [(d, p) for d, p in ranked if held.labels[p] != one.name]
            if wrong and held.labels[ranked[0][1]] != one.name:
                firsts[str(held.labels[ranked[0][1]])] += 1
            for query in one.shown:
                if query.path == queries.paths[row]:
                    got = [(answer.distance, answer.path) for answer in query.answers]
                    assert got == [(d, held.paths[p]) for d, p in wrong[:ANSWERS]]
        assert one.times == max(firsts.values(), default=0)
        assert not firsts or firsts[one.taken_for] == one.times
        precisions = [query.average_precision for query in one.shown]
        assert precisions == sorted(precisions) and len(precisions) <= QUERIES
        if one.queries <= QUERIES and len(one.shown) == one.queries:
            assert np.mean(precisions) == pytest.approx(one.map)


def test_only_so_many_classes_and_none_that_is_perfect() -> None:
    labels = np.array([f"{row:02d}" for row in range(20)] * 2)
    codes = np.tile(np.arange(20, dtype=np.uint8)[:, None], (2, 1))
    photos = CodedPhotos(codes, labels, [str(row) for row in range(40)])
    detail = evaluate_in_detail(codes, labels, codes, labels, True)
    assert find_worst(photos, None, detail.classes) == []  # each finds its equal first
    codes[20:] = codes[20:][::-1]
    detail = evaluate_in_detail(codes, labels, codes, labels, True)
    assert len(find_worst(photos, None, detail.classes)) == CLASSES


def test_the_file_gives_back_what_was_found(tmp_path: Path) -> None:
    queries, gallery = _drawn(12, 3, 5, 'q "x", <y>\n'), _drawn(30, 3, 6, "g")
    detail = evaluate_in_detail(queries.codes, queries.labels, gallery.codes, gallery.labels)
    found = find_worst(queries, gallery, detail.classes)
    assert found
    write_failures(tmp_path / "failures.csv", "asym_sign", found)
    assert read_failures(tmp_path / "failures.csv") == ("asym_sign", found)
    write_failures(tmp_path / "none.csv", "asym_sign", [])
    assert read_failures(tmp_path / "none.csv") == ("", [])


@pytest.mark.parametrize("text", ["class,map\na,0.5\n", None, "\x00"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str | None) -> None:
    queries, gallery = _drawn(12, 3, 5, "q"), _drawn(30, 3, 6, "g")
    detail = evaluate_in_detail(queries.codes, queries.labels, gallery.codes, gallery.labels)
    path = tmp_path / "failures.csv"
    write_failures(path, "asym_sign", find_worst(queries, gallery, detail.classes))
    whole = path.read_text()
    path.write_text(whole.rpartition(",")[0] + ",far\n" if text is None else text)
    if text == "\x00":
        path.write_bytes(b"\xff\xfe")
    with refused(DataError, "failures.csv holds no failures"):
        read_failures(path)
