"""Target codes from features by what they promise, their spacing, and codes that classes share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.training import target_codes
from fgdeploy.training.discriminants import class_means
from fgdeploy.training.target_codes import (
    Signs,
    class_codes,
    label_codes,
    shared_codes,
    spacing_for,
)
from tests.checks import refused
from tests.training.setups import Array, Labels, between, some_labels


@pytest.mark.parametrize("bits", [-1, 0, 7, 513])
def test_a_number_of_bits_that_no_code_has(bits: int) -> None:
    words = f"^a code has 8 to 512 bits, not {bits}; choose another --bits$"
    labels = some_labels(4, 12, 0)
    with refused(UsageError, words):
        label_codes(labels, bits)
    with refused(UsageError, words):
        class_codes(np.ones((12, 5)), labels, bits)


# Codes from features


class Features(NamedTuple):
    """Images of classes in groups that look alike: embeddings, labels, the true class means."""

    rows: Array
    labels: Labels
    means: Array
    groups: npt.NDArray[np.int64]


def features(classes: int, width: int, seed: int, each: int = 6, groups: int = 10) -> Features:
    chooser = np.random.default_rng(seed)
    group = np.arange(classes) % groups
    means = 2 * chooser.standard_normal((groups, width))[group]
    means += 0.7 * chooser.standard_normal((classes, width))
    labels = chooser.permutation(np.repeat(np.arange(classes), each))
    rows = means[labels] + 0.5 * chooser.standard_normal((len(labels), width))
    return Features(rows, labels, means, group)


def ranks(values: npt.NDArray[np.generic]) -> Array:
    """Return ranks, the mean of them where values are the same."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which])


def rank_correlation(means: Array, codes: Signs) -> float:
    """Return Spearman's correlation of the distances of means and of codes."""
    pairs = np.triu_indices(len(means), 1)
    far = np.linalg.norm(means[pairs[0]] - means[pairs[1]], axis=1)
    return float(np.corrcoef(ranks(far), ranks(between(codes)))[0, 1])


def test_rank_correlation_by_hand() -> None:
    means = np.array([[0.0], [1.0], [3.0]])  # distances 1, 3, 2
    codes = np.array([[1, 1, 1], [1, 1, -1], [-1, -1, -1]], np.int8)  # 1, 3, 2
    assert rank_correlation(means, codes) == pytest.approx(1)
    assert rank_correlation(means, codes[[0, 2, 1]]) == pytest.approx(-1)  # 3, 1, 2
    assert rank_correlation(means, codes[[1, 0, 2]]) == pytest.approx(0.5)  # 1, 2, 3
    assert ranks(np.array([5, 1, 5, 7])).tolist() == [2.5, 1, 2.5, 4]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [16, 64, 200])
def test_class_codes_keep_their_spacing_and_the_neighbourhoods(width: int, seed: int) -> None:
    found = features(100, width, seed)
    codes = class_codes(found.rows, found.labels, 32, seed)
    assert codes.shape == (100, 32)
    assert codes.dtype == np.int8
    assert set(np.unique(codes)) == {-1, 1}
    assert between(codes).min() >= spacing_for(100, 32) >= 9
    assert shared_codes(codes, np.arange(100)) == 0
    # Unrelated codes would give 0 within 0.03.
    assert rank_correlation(found.means, codes) > 0.35
    pairs = np.triu_indices(100, 1)
    alike = found.groups[pairs[0]] == found.groups[pairs[1]]
    far = between(codes)
    assert far[alike].mean() < far[~alike].mean() - 5
    assert far[~alike].mean() == pytest.approx(16, abs=1)
    # A bit that is the same for nearly all classes tells nothing.
    assert np.abs(codes.mean(axis=0)).max() < 0.4


def test_directions_that_vary_within_classes_do_not_count() -> None:
    """The class means are whitened by the spread within: without that these codes follow noise."""
    for seed in range(3):
        chooser = np.random.default_rng(seed)
        means = chooser.standard_normal((60, 12))
        labels = np.repeat(np.arange(60), 8)
        signal = means[labels] + 0.3 * chooser.standard_normal((480, 12))
        rows = np.concatenate([signal, 3 * chooser.standard_normal((480, 40))], axis=1)
        # About 0.15 with plain means, as the noise of a mean of eight is as large as the signal.
        assert rank_correlation(means, class_codes(rows, labels, 12, seed)) > 0.3


@pytest.mark.parametrize(("classes", "bits"), [(20, 32), (24, 64), (40, 64)])
def test_fewer_classes_than_bits_carry_how_alike_they_are(classes: int, bits: int) -> None:
    for seed in range(3):
        found = features(classes, 48, seed, groups=classes // 4)
        codes = class_codes(found.rows, found.labels, bits, seed)
        means = class_means(found.rows, found.labels)
        assert rank_correlation(means, codes) > 0.5
        assert between(codes).min() >= spacing_for(classes, bits)
        assert np.abs(codes.mean(axis=0)).max() < 0.3
        same = np.abs(codes.astype(float).T @ codes) / classes - np.eye(bits)
        assert same.max() < 1  # no bit twice, nor a bit and its opposite


def test_the_rotation_to_signs_gets_better_with_every_iteration() -> None:
    wanted = np.linalg.qr(np.random.default_rng(0).standard_normal((100, 16)))[0]
    spread = np.square(wanted).sum(axis=1)
    sizes = []
    for count in (0, 1, 2, 3, 5, 10, 100):
        signs, leaning = target_codes._rotate_to_signs(wanted, np.random.default_rng(1), count)
        assert signs.dtype == np.int8
        np.testing.assert_array_equal(signs, np.where(leaning >= 0, 1, -1))
        assert np.abs(leaning).mean() == pytest.approx(1)
        # Rotated and scaled, no more: rows keep the proportions of their lengths.
        ratio = np.square(leaning).sum(axis=1) / spread
        np.testing.assert_allclose(ratio, ratio[0])
        sizes.append(1 / np.sqrt(ratio[0]))  # the mean size of a value, larger near the signs
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.03 * sizes[0]
    default, _ = target_codes._rotate_to_signs(wanted, np.random.default_rng(1))
    np.testing.assert_array_equal(default, signs)  # after 100


@pytest.mark.parametrize("spacing", [8, 9, 10, 11])
def test_a_spacing_that_is_asked_for(spacing: int) -> None:
    found = features(100, 40, 0)
    codes = class_codes(found.rows, found.labels, 32, spacing=spacing)
    assert between(codes).min() >= spacing


def test_spacing_costs_likeness() -> None:
    found = features(100, 40, 0)
    free, near, far = (
        class_codes(found.rows, found.labels, 32, spacing=spacing) for spacing in (0, 8, 11)
    )
    assert between(free).min() < 8
    assert between(near).std() > between(far).std()  # what is held apart cannot differ as much
    assert rank_correlation(found.means, free) > rank_correlation(found.means, far)


def test_class_codes_are_decided_by_the_seed() -> None:
    found = features(30, 40, 0)
    one, same, other = (class_codes(found.rows, found.labels, 16, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_embeddings_may_be_float32_and_are_not_changed() -> None:
    found = features(30, 40, 0)
    rows = found.rows.astype(np.float32)
    before = rows.copy()
    codes = class_codes(rows, found.labels, 16)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(codes, class_codes(rows.astype(np.float64), found.labels, 16))


@pytest.mark.parametrize(
    ("classes", "width", "bits"), [(20, 4, 32), (20, 2, 16), (9, 1, 8), (12, 64, 32), (3, 2, 64)]
)
def test_more_bits_than_directions(classes: int, width: int, bits: int) -> None:
    found = features(classes, width, 1)
    codes = class_codes(found.rows, found.labels, bits)
    assert codes.shape == (classes, bits)
    assert between(codes).min() >= spacing_for(classes, bits) > 0


@pytest.mark.parametrize(("width", "bits"), [(1, 8), (8, 16), (50, 64)])
def test_two_classes_are_opposite(width: int, bits: int) -> None:
    found = features(2, width, 0)
    codes = class_codes(found.rows, found.labels, bits)
    assert between(codes).tolist() == [bits]


@pytest.mark.parametrize("rows", [np.ones((20, 5)), np.zeros((20, 5), np.float32)])
def test_classes_with_identical_means_are_still_told_apart(
    rows: npt.NDArray[np.floating],
) -> None:
    labels = np.arange(20) % 4
    codes = class_codes(rows, labels, 16)
    assert between(codes).min() >= spacing_for(4, 16) == 7


def test_one_class_has_a_code() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 4))
    codes = class_codes(rows, np.zeros(6, np.int64), 8)
    assert codes.shape == (1, 8)
    assert set(np.unique(codes)) <= {-1, 1}


@pytest.mark.parametrize(("classes", "bits"), [(2, 8), (3, 64), (30, 32), (200, 16)])
def test_one_photo_of_each_class(classes: int, bits: int) -> None:
    """There is no spread within classes to whiten by."""
    found = features(classes, 12, 0, each=1)
    codes = class_codes(found.rows, found.labels, bits)
    assert set(np.unique(codes)) == {-1, 1}
    assert between(codes).min() >= spacing_for(classes, bits)
    if classes > 3:
        means = class_means(found.rows, found.labels)
        assert rank_correlation(means, codes) > 0.3


def test_labels_that_say_nothing_still_get_codes_well_apart() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6))[np.arange(80) % 40]
    codes = class_codes(rows, np.repeat(np.arange(2), 40), 16)  # each photo in both classes
    assert between(codes).tolist() == [16]


def test_more_classes_than_codes_share_some() -> None:
    found = features(300, 32, 0)
    codes = class_codes(found.rows, found.labels, 8)
    assert codes.shape == (300, 8)
    distinct, counts = np.unique(codes, axis=0, return_counts=True)
    assert len(distinct) <= 256
    assert shared_codes(codes, np.arange(300)) == counts[counts > 1].sum() >= 300 - 255
    assert shared_codes(codes[found.labels], found.labels) == counts[counts > 1].sum()


# The spacing


@pytest.mark.parametrize("bits", [8, 9, 11])
def test_spacing_is_the_bound_of_gilbert_and_varshamov(bits: int) -> None:
    weights = np.array([f"{word:b}".count("1") for word in range(2**bits)])
    for classes in (1, 2, 3, 4, 7, 20, 28, 29, 100, 256, 257, 500, 2**bits, 2**bits + 1):
        spacings = [
            d
            for d in range(1, bits // 2 + 1)
            if classes * np.count_nonzero(weights <= d - 1) <= 2**bits
        ]
        assert spacing_for(classes, bits) == max(spacings, default=0)


@pytest.mark.parametrize("classes", [2, 5, 9, 16, 28, 29, 60, 256])
def test_code_books_of_that_spacing_exist(classes: int) -> None:
    """Taking every word that is far enough from those taken finds as many as the bound says."""
    spacing, book = spacing_for(classes, 8), [0]
    for word in range(1, 256):
        if all(f"{word ^ other:b}".count("1") >= spacing for other in book):
            book.append(word)
    assert len(book) >= classes


def test_spacing_grows_with_bits_and_falls_with_classes() -> None:
    for bits in (8, 16, 32, 48, 64, 128, 512):
        by_classes = [spacing_for(classes, bits) for classes in (1, 2, 10, 100, 1000, 10000)]
        assert by_classes == sorted(by_classes, reverse=True)
        assert by_classes[0] == bits // 2
    for classes in (2, 10, 100, 1000):
        by_bits = [spacing_for(classes, bits) for bits in range(8, 129)]
        assert by_bits == sorted(by_bits)


# Shared codes

A, B, C, D = [1, 1, 1], [1, 1, -1], [-1, 1, 1], [-1, -1, -1]


@pytest.mark.parametrize(
    ("codes", "labels", "expected"),
    [
        ([A, B], [0, 1], 0),
        ([A, A], [0, 0], 0),  # two images of one class
        ([A, A], [0, 1], 2),
        ([A, B, B, C], [0, 0, 1, 2], 2),  # only the odd code of class 0 is that of class 1
        ([A, A, A, B], [0, 1, 2, 3], 3),
        ([A, A, B, B, C], [0, 1, 2, 3, 4], 4),  # two pairs
        ([A, B, B, C, C, D], [0, 0, 1, 1, 2, 3], 3),  # a chain
        ([D, A, D], [9, 4, 7], 2),  # any numbers, in any order
        ([A], [0], 0),
    ],
)
def test_shared_codes_by_hand(codes: list[list[int]], labels: list[int], expected: int) -> None:
    assert shared_codes(np.array(codes, np.int8), np.array(labels)) == expected


@pytest.mark.parametrize("bit", [0, 7, 8, 11])
def test_one_bit_tells_codes_apart(bit: int) -> None:
    codes = np.ones((2, 12), np.int8)
    codes[1, bit] = -1
    assert shared_codes(codes, np.arange(2)) == 0
    assert shared_codes(codes[[0, 0]], np.arange(2)) == 2
