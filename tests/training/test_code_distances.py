"""Codes that follow wanted distances, against the sum over pairs that they are to make small."""

from __future__ import annotations

import numpy as np
import pytest

from fgdeploy.training import code_distances
from fgdeploy.training.code_distances import Signs, WantedDistances, settle
from tests.training.setups import Array


def points(classes: int, width: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((classes, width))


def a_start(classes: int, bits: int, seed: int = 0) -> tuple[Signs, Array]:
    leaning = np.random.default_rng(seed).standard_normal((classes, bits))
    return np.where(leaning >= 0, 1, -1).astype(np.int8), leaning / np.abs(leaning).mean()


def all_wanted(wanted: WantedDistances) -> Array:
    return np.concatenate([block for _, block in wanted.blocks()]).astype(np.float64)


def cost(codes: Signs, leaning: Array, wanted: Array, spacing: int) -> float:
    """Return what is made small, pair by pair; a pair counts for both of its classes."""
    classes, total = len(codes), 0.0
    for one in range(classes):
        for other in range(classes):
            if one != other:
                distance = int((codes[one] != codes[other]).sum())
                near = max(0, spacing - distance)
                total += (distance - wanted[one, other]) ** 2 / 2
                total += code_distances.NEARNESS * classes * near**2 / 2
    left = -code_distances.LEANING * (classes - 1) * (codes * leaning).sum() / 2
    return total + float(left)


@pytest.mark.parametrize(("classes", "bits", "spacing"), [(7, 8, 2), (12, 16, 5), (5, 24, 11)])
def test_no_flip_is_left_that_pays(classes: int, bits: int, spacing: int) -> None:
    wanted = WantedDistances(points(classes), bits, spacing)
    full = all_wanted(wanted)
    start, leaning = a_start(classes, bits)
    codes = settle(start, leaning, wanted)
    least = cost(codes, leaning, full, spacing)
    assert least < cost(start, leaning, full, spacing)
    for row in range(classes):
        for bit in range(bits):
            codes[row, bit] *= -1
            assert cost(codes, leaning, full, spacing) > least - 0.01 * classes
            codes[row, bit] *= -1


def test_settling_starts_from_codes_and_leaves_them_as_they_are() -> None:
    wanted = WantedDistances(points(9), 16, 4)
    start, leaning = a_start(9, 16)
    before = start.copy()
    codes = settle(start, leaning, wanted)
    np.testing.assert_array_equal(start, before)
    np.testing.assert_array_equal(settle(codes, leaning, wanted), codes)
    assert set(np.unique(codes)) == {-1, 1}


def test_wanted_distances_are_a_line_that_ends_at_the_spacing() -> None:
    chosen = points(40)
    wanted = all_wanted(WantedDistances(chosen, 64, 20))
    pairs = np.triu_indices(40, 1)
    far = np.linalg.norm(chosen[pairs[0]] - chosen[pairs[1]], axis=1)
    middle = 32 * 40 / 39 + 64 * code_distances.HALVING
    slope = (middle - 20) / (far.mean() - np.quantile(far, code_distances.NEAREST))
    expected = np.clip(middle + slope * (far - far.mean()), 20, 64)
    np.testing.assert_allclose(wanted[pairs], expected, rtol=1e-4)
    np.testing.assert_allclose(wanted, wanted.T, rtol=1e-5)
    assert wanted.min() == 20
    assert (wanted[pairs] == 20).sum() == 8  # of 780 pairs


def test_blocks_are_all_rows_in_order() -> None:
    chosen = points(600)
    parts = list(WantedDistances(chosen, 32, 7).blocks())
    assert [start for start, _ in parts] == [0, 256, 512]
    assert [block.shape for _, block in parts] == [(256, 600), (256, 600), (88, 600)]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_scale_of_points_does_not_matter(scale: float) -> None:
    chosen = points(10)
    got = all_wanted(WantedDistances(chosen * scale, 32, 8))
    np.testing.assert_allclose(got, all_wanted(WantedDistances(chosen, 32, 8)), rtol=1e-3)


@pytest.mark.parametrize(
    "chosen", [np.zeros((6, 3)), np.eye(6), np.eye(6) * (1 + 1e-5 * np.arange(6)), np.eye(2)]
)
def test_points_that_are_all_as_far_want_codes_that_are(chosen: Array) -> None:
    wanted = all_wanted(WantedDistances(chosen, 32, 8))
    pairs = np.triu_indices(len(chosen), 1)
    middle = min(32, 16 * len(chosen) / (len(chosen) - 1) + 32 * code_distances.HALVING)
    np.testing.assert_allclose(wanted[pairs], middle, rtol=1e-5)


def test_one_code_stays() -> None:
    start, leaning = a_start(1, 8)
    codes = settle(start, leaning, WantedDistances(np.zeros((1, 4)), 8, 4))
    np.testing.assert_array_equal(codes, start)
