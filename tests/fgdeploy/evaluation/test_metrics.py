import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import DataError, FgdeployError
from fgdeploy.evaluation import Scores, evaluate, mean_average_precision, ranking
from tests.checks import examples, refused
from tests.fgdeploy.evaluation.reference import (
    distances_of,
    expected_average_precision,
    groups_of,
    mean_over_all_orders,
    reference,
)

CUTS = (1, 3, 10)
# Both sides sum in float64, in another order.
TOLERANCE = 1e-12

thorough = examples(100)


def assert_same(found: Scores, expected: Scores) -> None:
    assert (found.queries, found.gallery) == (expected.queries, expected.gallery)
    assert found.without_relevant == expected.without_relevant
    assert found.map == pytest.approx(expected.map, abs=TOLERANCE)
    assert found.tie_aware_map == pytest.approx(expected.tie_aware_map, abs=TOLERANCE)
    assert found.recall == pytest.approx(expected.recall, abs=TOLERANCE)
    assert found.precision == pytest.approx(expected.precision, abs=TOLERANCE)


def draw(
    seed: int, count: int, width: int, different: int, classes: int
) -> tuple[UInt8Array, npt.NDArray[np.str_]]:
    chooser = np.random.default_rng(seed)
    palette = chooser.integers(0, 256, (different, width), dtype=np.uint8)
    codes = palette[chooser.integers(0, different, count)]
    return codes, np.array([f"class {n}" for n in chooser.integers(0, classes, count)], np.str_)


@thorough
@given(
    seed=st.integers(0, 2**32 - 2),
    queries=st.integers(1, 6),
    gallery=st.integers(1, 30),
    width=st.integers(1, 9),
    different=st.sampled_from([1, 2, 4, 30]),
    classes=st.integers(1, 6),
    cells=st.sampled_from([1, 50, 1 << 23]),
)
def test_scores_are_those_of_the_definitions(
    seed: int, queries: int, gallery: int, width: int, different: int, classes: int, cells: int
) -> None:
    of_queries = draw(seed, queries, width, different, classes)
    of_gallery = draw(seed + 1, gallery, width, different, classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_CHUNK_CELLS", cells)
        found = evaluate(*of_queries, *of_gallery, precision_at=CUTS)
    assert_same(found, reference(*of_queries, *of_gallery, False, CUTS))


@thorough
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 25),
    different=st.sampled_from([1, 2, 4, 30]),
    classes=st.integers(1, 6),
    cells=st.sampled_from([1, 60, 1 << 23]),
)
def test_each_against_all_others(
    seed: int, count: int, different: int, classes: int, cells: int
) -> None:
    photos = draw(seed, count, 3, different, classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_CHUNK_CELLS", cells)
        found = evaluate(*photos, *photos, same_set=True, precision_at=CUTS)
    assert_same(found, reference(*photos, *photos, True, CUTS))


@thorough
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), levels=st.integers(1, 3))
def test_tie_aware_is_the_mean_over_all_orders(seed: int, count: int, levels: int) -> None:
    chooser = np.random.default_rng(seed)
    gallery = np.array([0, 1, 3], np.uint8)[chooser.integers(0, levels, count)][:, None]
    labels = np.where(chooser.random(count) < 0.5, "moth", "owl")
    query = np.zeros((1, 1), np.uint8)
    found = evaluate(query, np.array(["moth"]), gallery, labels).tie_aware_map
    distances, relevant = distances_of(query[0], gallery), [name == "moth" for name in labels]
    assert found == pytest.approx(mean_over_all_orders(distances, relevant), abs=TOLERANCE)
    assert found == pytest.approx(expected_average_precision(distances, relevant), abs=TOLERANCE)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
def test_one_relevant_item_among_ties_is_found_at_any_rank_alike(count: int) -> None:
    # Rank uniform in 1..n, precision 1/rank: the mean is H(n) / n.
    labels = np.array(["moth"] + ["owl"] * (count - 1))
    scores = evaluate(
        np.zeros((1, 1), np.uint8), labels[:1], np.zeros((count, 1), np.uint8), labels
    )
    harmonic = math.fsum(1 / n for n in range(1, count + 1))
    assert scores.tie_aware_map == pytest.approx(harmonic / count, abs=TOLERANCE)
    assert scores.map == 1.0  # it happens to stand first


@pytest.mark.parametrize(("count", "hits"), [(10, 3), (50, 50), (100, 2), (7, 6)])
def test_all_items_tied(count: int, hits: int) -> None:
    # AP of a random order: (1/n) sum over i of (1 + (i-1)(r-1)/(n-1)) / i.
    labels = np.array(["owl"] * (count - hits) + ["moth"] * hits)
    codes = np.zeros((count, 4), np.uint8)
    scores = evaluate(codes[:1], np.array(["moth"]), codes, labels)
    expected = math.fsum((1 + (i - 1) * (hits - 1) / (count - 1)) / i for i in range(1, count + 1))
    assert scores.tie_aware_map == pytest.approx(expected / count, abs=TOLERANCE)
    worst = math.fsum(found / (count - hits + found) for found in range(1, hits + 1)) / hits
    assert scores.map == pytest.approx(worst, abs=TOLERANCE)


def test_without_ties_both_maps_are_one() -> None:
    gallery = np.array([[(1 << n) - 1] for n in range(9)], np.uint16).astype(">u2").view(np.uint8)
    labels = np.array(list("abcabcabc"))
    scores = evaluate(np.zeros((2, 2), np.uint8), np.array(["a", "c"]), gallery, labels)
    assert scores.tie_aware_map == pytest.approx(scores.map, abs=TOLERANCE)
    # "a" at ranks 1, 4, 7 and "c" at ranks 3, 6, 9
    a, c = (1 + 2 / 4 + 3 / 7) / 3, (1 / 3 + 2 / 6 + 3 / 9) / 3
    assert scores.map == pytest.approx((a + c) / 2, abs=TOLERANCE)


def test_the_tie_aware_map_does_not_depend_on_the_order_of_the_gallery() -> None:
    codes, labels = draw(3, 60, 1, 5, 4)
    queries = draw(4, 9, 1, 5, 4)
    order = np.random.default_rng(5).permutation(60)
    one = evaluate(*queries, codes, labels)
    other = evaluate(*queries, codes[order], labels[order])
    assert one.tie_aware_map == pytest.approx(other.tie_aware_map, abs=TOLERANCE)
    assert one.map != pytest.approx(other.map, abs=1e-6)


def test_a_long_gallery_keeps_its_precision() -> None:
    # Differences of harmonic numbers far down the ranking cancel; 20,000 items must not show it.
    codes, labels = draw(8, 20_000, 2, 40, 3)
    found = evaluate(codes[:1], labels[:1], codes, labels).tie_aware_map
    distances = distances_of(codes[0], codes)
    groups = groups_of(distances, [bool(label == labels[0]) for label in labels])
    before = seen = 0
    terms = []
    for group in groups:
        size, hits = len(group), sum(group)
        terms += [
            hits / size * (seen + 1 + (place - 1) * (hits - 1) / (size - 1)) / (before + place)
            for place in range(1, size + 1)
        ]
        before, seen = before + size, seen + hits
    assert found == pytest.approx(math.fsum(terms) / seen, abs=1e-10)


def codes_of(*bits: str) -> UInt8Array:
    return np.array([[int(text, 2)] for text in bits], np.uint8)


def test_four_queries_by_hand() -> None:
    gallery = codes_of("00000000", "00000001", "00000011", "00000111", "00001111", "11111111")
    gallery_labels = np.array(["A", "A", "B", "A", "B", "C"])
    queries = codes_of("00000000", "00000001", "11110000", "00000000")
    query_labels = np.array(["A", "B", "C", "D"])
    scores = evaluate(queries, query_labels, gallery, gallery_labels, precision_at=(2, 10))

    # A searches from 00000000, distances 0 1 2 3 4 8: items 0 1 2 3 4 5, relevant at ranks 1, 2, 4.
    #   AP = (1/1 + 2/2 + 3/4) / 3 = 11/12, and no ties.
    # B searches from 00000001, distances 1 0 1 2 3 7: items 1 0 2 3 4 5, relevant at ranks 3, 5.
    #   AP = (1/3 + 2/5) / 2 = 11/30. Items 0 and 2 tie at ranks 2 and 3, so the first precision
    #   is 1/2 or 1/3: (5/12 + 2/5) / 2 = 49/120.
    # C searches from 11110000, distances 4 5 6 7 8 4: items 0 5 1 2 3 4, relevant at rank 2.
    #   AP = 1/2; items 0 and 5 tie at ranks 1 and 2: (1 + 1/2) / 2 = 3/4.
    # D searches for what is not there: 0, and it counts.
    assert scores.map == pytest.approx((11 / 12 + 11 / 30 + 1 / 2 + 0) / 4, abs=TOLERANCE)
    assert scores.tie_aware_map == pytest.approx(
        (11 / 12 + 49 / 120 + 3 / 4 + 0) / 4, abs=TOLERANCE
    )
    # First relevant ranks 1, 3, 2, none.
    assert scores.recall == {1: 1 / 4, 2: 2 / 4, 4: 3 / 4, 8: 3 / 4}
    # Relevant among the first two: 2, 0, 1, 0; among the first ten (of six): 3, 2, 1, 0.
    assert scores.precision == pytest.approx({2: 3 / 8, 10: 6 / 40}, abs=TOLERANCE)
    assert (scores.queries, scores.gallery, scores.without_relevant) == (4, 6, 1)


def test_a_query_is_never_its_own_answer() -> None:
    codes = codes_of("00000000", "00000000", "11111111", "11111110")
    labels = np.array(["A", "B", "A", "B"])
    scores = evaluate(codes, labels, codes, labels, same_set=True, precision_at=(1,))
    # 0 finds 1 (B), 3 (B), 2 (A): 1/3.   1 finds 0 (A), 3 (B): 1/2.
    # 2 finds 3 (B), 0 (A): 1/2.          3 finds 2 (A), 0 (A), 1 (B): 1/3.
    assert scores.map == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 1 / 3) / 4, abs=TOLERANCE)
    assert scores.recall == {1: 0.0, 2: 0.5, 4: 1.0, 8: 1.0}
    assert scores.precision == {1: 0.0}
    assert scores.gallery == 3
    itself = evaluate(codes, labels, codes, labels)
    assert (itself.gallery, itself.recall[1]) == (4, 3 / 4)  # 1 finds 0 before itself


def test_no_query_has_a_relevant_item() -> None:
    codes = codes_of("00000000", "00000001", "00000011")
    scores = evaluate(codes, np.array(["x", "y", "z"]), codes, np.array(["a", "b", "c"]))
    assert (scores.map, scores.tie_aware_map, scores.without_relevant) == (0.0, 0.0, 3)
    assert set(scores.recall.values()) == {0.0}
    alone = evaluate(codes, np.array(["x", "y", "z"]), codes, np.array(["x", "y", "z"]), True)
    assert (alone.map, alone.without_relevant) == (0.0, 3)


def test_a_perfect_ranking() -> None:
    codes, labels = codes_of("00000000", "00000001", "11111111"), np.array(["a", "a", "b"])
    scores = evaluate(codes[:1], labels[:1], codes, labels, precision_at=(2,))
    assert (scores.map, scores.tie_aware_map) == (1.0, 1.0)
    assert scores.precision == {2: 1.0}
    assert set(scores.recall.values()) == {1.0}


@pytest.mark.parametrize("cells", [1, 39, 40, 41, 79, 80, 81, 399, 400])
@pytest.mark.parametrize("same_set", [False, True])
def test_chunks_change_nothing(cells: int, same_set: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = draw(11, 40, 2, 12, 4)
    whole = evaluate(*photos, *photos, same_set=same_set, precision_at=CUTS)
    monkeypatch.setattr(ranking, "_CHUNK_CELLS", cells)
    assert evaluate(*photos, *photos, same_set=same_set, precision_at=CUTS) == whole


@pytest.mark.parametrize("same_set", [False, True])
def test_mean_average_precision_is_the_same_number(same_set: bool) -> None:
    photos = draw(12, 30, 2, 12, 4)
    whole = evaluate(*photos, *photos, same_set=same_set)
    assert mean_average_precision(*photos, *photos, same_set=same_set) == whole.map
    assert set(whole.precision) == {10}


def test_the_same_cut_twice_counts_once() -> None:
    photos = draw(13, 20, 2, 6, 3)
    once = evaluate(*photos, *photos, precision_at=(5,))
    assert evaluate(*photos, *photos, precision_at=(5, 5)).precision == once.precision
    assert evaluate(*photos, *photos, precision_at=()).precision == {}


# Errors

CODES, LABELS = codes_of("00000000", "00000001", "00000011"), np.array(["a", "b", "a"])


@pytest.mark.parametrize(
    ("queries", "gallery", "same_set", "words"),
    [
        (0, 3, False, "0 queries against 3 gallery items"),
        (3, 0, False, "3 queries against 0 gallery items"),
        (0, 0, True, "0 queries against 0 gallery items"),
        (1, 1, True, "1 query against 1 gallery item"),
    ],
)
def test_nothing_to_rank(queries: int, gallery: int, same_set: bool, words: str) -> None:
    with refused(DataError, f"^nothing to rank: {words}"):
        evaluate(CODES[:queries], LABELS[:queries], CODES[:gallery], LABELS[:gallery], same_set)


def test_codes_of_another_width() -> None:
    words = "^queries have 1 bytes, the gallery 2; hash both with the same model$"
    with refused(DataError, words):
        evaluate(CODES, LABELS, np.zeros((3, 2), np.uint8), LABELS)


def test_same_set_of_two_sizes() -> None:
    with refused(DataError, "^same_set needs equal sets, got 2 and 3"):
        evaluate(CODES[:2], LABELS[:2], CODES, LABELS, same_set=True)


@pytest.mark.parametrize(("queries", "gallery"), [(1, 3), (2, 3), (4, 3), (3, 1), (3, 2), (3, 4)])
def test_labels_of_another_number(queries: int, gallery: int) -> None:
    names = np.array(["a", "b", "a", "b"])
    with refused(DataError, "label"):
        evaluate(CODES, names[:queries], CODES, names[:gallery])


def test_codes_that_are_not_packed() -> None:
    with refused(DataError, "uint8"):
        evaluate(CODES.astype(np.int64) + 256, LABELS, CODES, LABELS)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, -1])
def test_precision_at_less_than_one(k: int) -> None:
    with pytest.raises(FgdeployError, match=f"precision.*{k}"):
        evaluate(CODES, LABELS, CODES, LABELS, precision_at=(k,))
