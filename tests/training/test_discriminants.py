"""Class means in LDA coordinates against their definitions, and what few photos do to them."""

from __future__ import annotations

import numpy as np
import pytest

from fgdeploy.training.discriminants import class_means, shrinkage
from tests.training.setups import Array, Labels


def draw(classes: int, each: int, seed: int, scales: Array) -> tuple[Array, Labels]:
    """Return rows whose spread within classes has these scales, and labels."""
    chooser = np.random.default_rng(seed)
    labels = chooser.permutation(np.repeat(np.arange(classes), each))
    means = chooser.standard_normal((classes, len(scales)))
    return means[labels] + scales * chooser.standard_normal((len(labels), len(scales))), labels


def by_definition(rows: Array, labels: Labels) -> tuple[Array, float]:
    """Return residuals and the shrinkage of Ledoit and Wolf, one photo's outer product a time."""
    within = np.stack(
        [x - rows[labels == label].mean(axis=0) for x, label in zip(rows, labels, strict=True)]
    )
    free = len(rows) - len(set(labels))
    outer = [np.outer(x, x) for x in within]
    scatter = sum(outer) / free
    sphere = np.trace(scatter) / rows.shape[1] * np.eye(rows.shape[1])
    error = sum(np.sum((one - scatter) ** 2) for one in outer) / free**2
    # The sum runs over n photos where the degrees of freedom are fewer.
    error -= (len(rows) - free) * np.sum(scatter**2) / free**2
    return within, min(1.0, error / np.sum((scatter - sphere) ** 2))


@pytest.mark.parametrize(("classes", "each"), [(10, 50), (10, 3), (4, 2)])
def test_shrinkage_by_its_definition(classes: int, each: int) -> None:
    rows, labels = draw(classes, each, 0, np.arange(1.0, 7))
    within, expected = by_definition(rows, labels)
    got = shrinkage(within, len(rows) - classes)
    assert got == pytest.approx(expected, rel=1e-9)
    assert 0 < got <= 1


def test_shrinkage_falls_with_photos() -> None:
    parts = []
    for each in (2, 5, 20, 200):
        rows, labels = draw(10, each, 0, np.arange(1.0, 7))
        within, part = by_definition(rows, labels)
        assert shrinkage(within, len(rows) - 10) == pytest.approx(part)
        parts.append(part)
    assert parts == sorted(parts, reverse=True)
    assert parts[0] > 0.2
    assert parts[-1] < 0.01


def test_a_spread_that_is_a_sphere_is_shrunk_to_it() -> None:
    rows, labels = draw(10, 30, 0, np.ones(20))
    assert shrinkage(by_definition(rows, labels)[0], 290) > 0.8


def test_the_spread_within_classes_is_whitened() -> None:
    """In the new coordinates it is the identity, but for the shrinkage."""
    rows, labels = draw(10, 50, 0, np.arange(1.0, 7))
    within, part = by_definition(rows, labels)
    scatter = within.T @ within / 490
    shrunk = (1 - part) * scatter + max(part, 1e-6) * np.trace(scatter) / 6 * np.eye(6)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(10)])
    centred = means - means.mean(axis=0)
    got = class_means(rows, labels)
    # Whitening is known but for a rotation: inner products are not.
    np.testing.assert_allclose(got @ got.T, centred @ np.linalg.inv(shrunk) @ centred.T, rtol=1e-8)


def test_more_numbers_than_photos_are_whitened_as_well() -> None:
    rows, labels = draw(5, 3, 0, np.linspace(0.5, 3, 60))
    got = class_means(rows, labels)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("copies", [1, 2])
def test_photos_that_do_not_differ_leave_the_coordinates_as_they_are(copies: int) -> None:
    """One photo a class, or copies of it: there is no spread to measure."""
    means = np.random.default_rng(0).standard_normal((6, 4))
    labels = np.tile(np.arange(6), copies)
    np.testing.assert_allclose(class_means(means[labels], labels), means - means.mean(axis=0))
