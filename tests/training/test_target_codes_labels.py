"""Target codes from labels against a direct reference of the published steps."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.training import target_codes
from fgdeploy.training.target_codes import (
    Signs,
    label_codes,
)
from tests.checks import refused
from tests.training.setups import Array, Labels, between, some_labels


def codes_by_class(codes: Signs, labels: Labels) -> list[int]:
    """Return how many different codes each class has."""
    return [len(np.unique(codes[labels == label], axis=0)) for label in np.unique(labels)]


# EET's codes from labels


class Step(NamedTuple):
    """The reference after an iteration."""

    codes: Array  # B, (bits, n)
    product: Array  # B V^T, whose orthogonal part is R
    rotation: Array  # R
    error: float  # |Y - P V|^2 + delta |B - R V|^2


def reference(labels: Labels, bits: int, seed: int, count: int, delta: float) -> list[Step]:
    """EET step 1 as docs/methods.md 1.3 has it, everything written out."""
    classes = labels.max() + 1
    y = np.zeros((classes, len(labels)))
    for image, label in enumerate(labels):
        y[label, image] = 1
    chooser = np.random.default_rng(seed)
    v = chooser.standard_normal((bits, len(labels)))
    b = chooser.standard_normal((bits, len(labels)))
    b[b >= 0], b[b < 0] = 1, -1
    u, _, w = np.linalg.svd(b @ v.T)
    r = u @ w
    steps = []
    for _ in range(count):
        b = np.sign(r @ v)
        b[b == 0] = 1
        p = y @ v.T @ np.linalg.pinv(v @ v.T)
        v = np.linalg.pinv(p.T @ p + delta * r.T @ r) @ (p.T @ y + delta * r.T @ b)
        product = b @ v.T
        u, _, w = np.linalg.svd(product)
        r = u @ w
        error = np.square(y - p @ v).sum() + delta * np.square(b - r @ v).sum()
        steps.append(Step(b, product, r, float(error)))
    return steps


CASES = [(3, 8, 30, 0), (10, 16, 200, 1), (20, 12, 300, 42), (60, 32, 400, 3), (40, 9, 400, 5)]


@pytest.mark.parametrize(("classes", "bits", "count", "seed"), CASES)
def test_label_codes_equal_the_reference(classes: int, bits: int, count: int, seed: int) -> None:
    labels = some_labels(classes, count, seed)
    codes = label_codes(labels, bits, seed)
    assert codes.shape == (count, bits)
    assert codes.dtype == np.int8
    assert set(np.unique(codes)) == {-1, 1}
    np.testing.assert_array_equal(codes, reference(labels, bits, seed, 15, 1e-4)[-1].codes.T)


@pytest.mark.parametrize("delta", [1e-5, 1e-4, 1e-2])
def test_every_iteration_equals_the_reference(delta: float) -> None:
    labels = some_labels(12, 120, 7)
    steps = reference(labels, 16, 4, 8, delta)
    for number, step in enumerate(steps, start=1):
        codes = label_codes(labels, 16, 4, iterations=number, delta=delta)
        np.testing.assert_array_equal(codes, step.codes.T)
    assert any(
        (one.codes != two.codes).any() for one, two in itertools.pairwise(steps)
    )  # else the iterations would prove nothing


def test_the_published_settings_are_the_defaults() -> None:
    labels = some_labels(12, 120, 7)
    codes = label_codes(labels, 16)
    np.testing.assert_array_equal(codes, label_codes(labels, 16, 42, 15, 1e-4))
    np.testing.assert_array_equal(codes, reference(labels, 16, 42, 15, 1e-4)[-1].codes.T)


@pytest.mark.parametrize(("classes", "bits", "count", "seed"), CASES)
def test_no_iteration_makes_the_objective_worse(
    classes: int, bits: int, count: int, seed: int
) -> None:
    """Each step is an exact minimum over one unknown, so a wrong sign or transpose shows here."""
    errors = [s.error for s in reference(some_labels(classes, count, seed), bits, seed, 15, 1e-4)]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.95 * errors[0]


def _spy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Array, Array]]:
    """Keep every B V^T of which a rotation is made, and the rotation."""
    plain = target_codes._procrustes
    seen: list[tuple[Array, Array]] = []

    def spy(product: Array) -> Array:
        seen.append((product, plain(product)))
        return seen[-1][1]

    monkeypatch.setattr(target_codes, "_procrustes", spy)
    return seen


# With fewer classes than bits the rotation is not unique: each CPU's SVD then gives another one.
@pytest.mark.parametrize(
    ("classes", "bits", "count", "seed"), [case for case in CASES if case[0] > case[1]]
)
def test_the_unknowns_behind_the_codes_equal_the_reference(
    monkeypatch: pytest.MonkeyPatch, classes: int, bits: int, count: int, seed: int
) -> None:
    """The codes are signs and forgive much; B V^T and R do not."""
    seen = _spy(monkeypatch)
    labels = some_labels(classes, count, seed)
    label_codes(labels, bits, seed)
    assert len(seen) == 16
    for (product, rotation), step in zip(
        seen[1:], reference(labels, bits, seed, 15, 1e-4), strict=True
    ):
        scale = np.abs(step.product).max()
        np.testing.assert_allclose(product, step.product, rtol=0, atol=1e-6 * scale)
        np.testing.assert_allclose(rotation, step.rotation, rtol=0, atol=1e-6)


def test_every_rotation_is_orthogonal_and_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _spy(monkeypatch)
    label_codes(some_labels(10, 100, 0), 16)
    assert len(seen) == 16
    chooser = np.random.default_rng(0)
    for product, rotation in seen:
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(16), atol=1e-12)
        best = np.trace(rotation.T @ product)
        assert best == pytest.approx(np.linalg.svd(product)[1].sum(), rel=1e-10)
        other, _ = np.linalg.qr(chooser.standard_normal((16, 16)))
        assert np.trace(other.T @ product) < best


@pytest.mark.parametrize(("classes", "bits"), [(100, 32), (60, 16), (40, 24)])
def test_there_is_almost_one_code_per_class(classes: int, bits: int) -> None:
    """Where classes are not fewer than bits; and the codes are as far apart as random ones."""
    labels = some_labels(classes, 6 * classes, 0)
    codes = label_codes(labels, bits)
    assert np.mean(codes_by_class(codes, labels)) < 1.1
    firsts = codes[np.unique(labels, return_index=True)[1]]
    assert between(firsts).mean() == pytest.approx(bits / 2, rel=0.05)


def test_label_codes_are_decided_by_the_seed() -> None:
    labels = some_labels(12, 120, 7)
    one, same, other = (label_codes(labels, 16, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any(axis=1).mean() > 0.9


def test_one_class_and_one_image() -> None:
    assert label_codes(np.zeros(5, np.int64), 8).shape == (5, 8)
    assert set(np.unique(label_codes(np.zeros(1, np.int64), 12))) <= {-1, 1}


def test_no_images_have_no_codes() -> None:
    with refused(DataError, "no training images to make target codes for; add photos"):
        label_codes(np.zeros(0, np.int64), 16)
