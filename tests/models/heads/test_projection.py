import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fgdeploy.core.errors import DataError, FgdeployError, UsageError
from fgdeploy.models.heads.base import Features
from fgdeploy.models.heads.projection import (
    Projection,
    ProjectionHead,
    fit_itq,
    normalise,
    random_hyperplanes,
)
from tests.checks import refused

FloatArray = npt.NDArray[np.float64]
WIDTH = 192


def embeddings(count: int, width: int = WIDTH, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return embeddings like a backbone's: few strong directions, a mean away from zero."""
    chooser = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(chooser.standard_normal((width, width)))
    scale = 1 / np.arange(1, width + 1)
    rows = (chooser.standard_normal((count, width)) * scale) @ turn + 0.3 * turn[0]
    return rows.astype(np.float32)


def quantisation_error(hashes: FloatArray) -> float:
    """Return the mean squared distance between hashes and their signs (Gong et al., eq. 2)."""
    return float(np.mean((np.where(hashes > 0, 1.0, -1.0) - hashes) ** 2))


def assert_orthonormal(rows: FloatArray) -> None:
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-10)


# Hashes


def test_rows_have_length_one_and_zero_stays_zero() -> None:
    rows = normalise(np.array([[3.0, 4.0], [0.0, 0.0], [-1e-3, 0.0], [1e20, 1e20]], np.float32))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [-1, 0], [half, half]], atol=1e-7)
    assert rows.dtype == np.float64


def test_a_hash_is_the_projection_of_the_normalised_embedding() -> None:
    chooser = np.random.default_rng(1)
    head = Projection(chooser.standard_normal((3, 4)), chooser.standard_normal(3))
    rows = chooser.standard_normal((5, 4)).astype(np.float32)
    found = head.hash(rows)
    assert found.shape == (5, 3)
    for row, hashed in zip(rows.tolist(), found, strict=True):
        length = sum(value * value for value in row) ** 0.5
        for weights, bias, value in zip(head.weight, head.bias, hashed, strict=True):
            expected = sum(w * x / length for w, x in zip(weights, row, strict=True)) + bias
            assert value == pytest.approx(expected, abs=1e-12)


def test_a_hash_does_not_depend_on_the_length_of_the_embedding() -> None:
    rows = embeddings(40)
    head = fit_itq(rows, 16)
    np.testing.assert_allclose(head.hash(rows), head.hash(1000 * rows), atol=1e-5)
    assert head.hash(rows[:0]).shape == (0, 16)


# ITQ


@pytest.mark.parametrize(
    ("bits", "count"),
    [(8, 2), (8, 200), (12, 5), (12, 9), (64, 2), (64, 40), (64, 120), (512, 5), (512, 40)],
)
def test_any_number_of_bits_from_any_number_of_photos(bits: int, count: int) -> None:
    rows = embeddings(count)
    head = fit_itq(rows, bits, iterations=2)
    assert head.weight.shape == (bits, WIDTH)
    assert head.bias.shape == (bits,)
    assert head.weight.dtype == head.bias.dtype == np.float64
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()
    # Orthonormal in blocks of as many directions as the photos span.
    rank = min(WIDTH, count - 1)
    for start in range(0, bits, rank):
        assert_orthonormal(head.weight[start : start + rank])
    # Centred: the mean embedding lies in the middle.
    np.testing.assert_allclose(head.hash(rows).mean(axis=0), 0, atol=1e-9)


def test_the_blocks_for_further_bits_differ() -> None:
    rows = embeddings(9)
    head = fit_itq(rows, 64)
    blocks = [head.weight[start : start + 8] for start in range(0, 64, 8)]
    for number, block in enumerate(blocks):
        for other in blocks[:number]:
            assert np.abs(block - other).max() > 1e-3
        # The same eight directions, turned.
        np.testing.assert_allclose(np.linalg.svd(block @ blocks[0].T)[1], 1, atol=1e-9)


def test_the_directions_are_the_principal_ones() -> None:
    rows = embeddings(150, 64)
    head = fit_itq(rows, 8)
    unit = normalise(rows)
    spread = np.cov(unit.T)
    _, vectors = np.linalg.eigh(spread)
    overlap = np.linalg.svd(head.weight @ vectors[:, -8:])[1]
    np.testing.assert_allclose(overlap, 1, atol=1e-9)
    np.testing.assert_allclose(head.bias, -head.weight @ unit.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize(("bits", "seed"), [(8, 0), (8, 1), (12, 2), (32, 3), (64, 4)])
def test_the_rotation_quantises_better_than_none_and_than_chance(bits: int, seed: int) -> None:
    rows = embeddings(150, 64, seed)
    centred = normalise(rows) - normalise(rows).mean(axis=0)
    principal = np.linalg.svd(centred, full_matrices=False)[2][:bits]
    plain = quantisation_error(centred @ principal.T)
    chance = quantisation_error(fit_itq(rows, bits, seed, iterations=0).hash(rows))
    some = quantisation_error(fit_itq(rows, bits, seed, iterations=3).hash(rows))
    fitted = quantisation_error(fit_itq(rows, bits, seed).hash(rows))
    assert fitted < plain
    assert fitted <= some < chance


def test_each_iteration_quantises_better() -> None:
    rows = embeddings(150, 64)
    errors = [
        quantisation_error(fit_itq(rows, 16, iterations=count).hash(rows)) for count in range(12)
    ]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


def test_bits_are_balanced_over_the_photos() -> None:
    rows = embeddings(200, 64)
    ones = (fit_itq(rows, 16).hash(rows) > 0).mean(axis=0)
    assert ones.min() > 0.2
    assert ones.max() < 0.8


def test_the_seed_decides() -> None:
    rows = embeddings(60)
    one, same, other = fit_itq(rows, 96, 5), fit_itq(rows, 96, 5), fit_itq(rows, 96, 6)
    np.testing.assert_array_equal(one.weight, same.weight)
    np.testing.assert_array_equal(one.bias, same.bias)
    assert np.abs(one.weight - other.weight).max() > 1e-3


def test_the_embeddings_are_not_changed() -> None:
    rows = embeddings(30)
    before = rows.copy()
    fit_itq(rows, 8)
    np.testing.assert_array_equal(rows, before)


def test_two_photos_are_enough() -> None:
    rows = embeddings(2)
    hashes = fit_itq(rows, 32).hash(rows)
    # One direction, so all bits agree up to their sign, and the two photos lie opposite.
    np.testing.assert_allclose(hashes[0], -hashes[1], atol=1e-12)
    assert np.abs(hashes).min() > 1e-3


def same(count: int) -> npt.NDArray[np.float32]:
    return np.repeat(embeddings(1), count, axis=0)


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (embeddings(1), 1),
        (same(50), 50),
        (same(3) * np.array([[1], [2], [64]], np.float32), 3),
        (np.zeros((5, WIDTH), np.float32), 5),
    ],
    ids=["one", "all the same", "the same but for their length", "zero"],
)
def test_embeddings_that_are_all_alike(rows: npt.NDArray[np.float32], count: int) -> None:
    words = (
        f"^an ITQ head needs at least two different photos, got {count} that look the same; "
        "point --fit-data at more photos$"
    )
    with refused(DataError, words):
        fit_itq(rows, 16)


def test_embeddings_that_differ_by_rounding_only() -> None:
    # One photo, copied; engines round a little differently from batch to batch.
    noise = np.random.default_rng(0).uniform(-1, 1, (20, WIDTH)) * np.finfo(np.float32).eps
    rows = (same(20) * (1 + noise)).astype(np.float32)
    with refused(DataError, "at least two different photos, got 20 that look the same"):
        fit_itq(rows, 16)


def test_no_embeddings() -> None:
    with refused(DataError, "at least two different photos, got 0"):
        fit_itq(np.zeros((0, WIDTH), np.float32), 16)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_not_finite(bad: float) -> None:
    rows = embeddings(20)
    rows[3, 5] = bad
    with refused(DataError, "^the embeddings hold NaN or infinite values; check the checkpoint$"):
        fit_itq(rows, 16)


@pytest.mark.parametrize("bits", [-1, 0, 7, 513])
def test_a_number_of_bits_that_no_code_has(bits: int) -> None:
    words = f"^a code has 8 to 512 bits, not {bits}; choose another --bits$"
    with refused(UsageError, words):
        fit_itq(embeddings(20), bits)
    with refused(UsageError, words):
        random_hyperplanes(WIDTH, bits)


# Random hyperplanes


@pytest.mark.parametrize("bits", [8, 12, 64, 191, 192, 193, 512])
def test_hyperplanes_are_orthonormal_in_blocks(bits: int) -> None:
    head = random_hyperplanes(WIDTH, bits)
    assert head.weight.shape == (bits, WIDTH)
    np.testing.assert_array_equal(head.bias, np.zeros(bits))
    for start in range(0, bits, WIDTH):
        assert_orthonormal(head.weight[start : start + WIDTH])


def test_hyperplanes_are_decided_by_the_seed() -> None:
    one, same, other = (random_hyperplanes(WIDTH, 300, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.weight, same.weight)
    assert np.abs(one.weight - other.weight).max() > 1e-3
    assert np.abs(one.weight[:108] - one.weight[192:]).max() > 1e-3


def test_hyperplanes_through_the_middle_of_the_data() -> None:
    rows = embeddings(300)
    mean = normalise(rows).mean(axis=0)
    head = random_hyperplanes(WIDTH, 64, 3, mean)
    plain = random_hyperplanes(WIDTH, 64, 3)
    np.testing.assert_array_equal(head.weight, plain.weight)
    np.testing.assert_allclose(head.hash(rows).mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(head.hash(rows), plain.hash(rows) + head.bias, atol=1e-12)


def test_the_hamming_distance_follows_the_angle() -> None:
    # Charikar 2002: two vectors at angle t differ in a share t / pi of random sign bits.
    chooser = np.random.default_rng(2)
    one = chooser.standard_normal(WIDTH)
    across = chooser.standard_normal(WIDTH)
    across -= across @ one / (one @ one) * one
    across *= np.linalg.norm(one) / np.linalg.norm(across)
    angles = np.array([0.1, 0.5, 1.0, np.pi / 2, 3.0])
    rows = np.stack([one, *(np.cos(t) * one + np.sin(t) * across for t in angles)])
    shares = []
    for seed in range(10):
        bits = random_hyperplanes(WIDTH, 512, seed).hash(rows) > 0
        shares.append((bits[1:] != bits[0]).mean(axis=1))
    np.testing.assert_allclose(np.mean(shares, axis=0), angles / np.pi, atol=0.03)


def test_a_negative_seed() -> None:
    with pytest.raises(FgdeployError, match="seed"):
        random_hyperplanes(WIDTH, 16, -1)


# As a head of a network


def test_projection_head_works_on_directions() -> None:
    weight, bias = torch.randn(9, 6), torch.randn(9)
    head = ProjectionHead(Projection(weight.double().numpy(), bias.double().numpy()), {})
    embedding = torch.randn(4, 6)
    expected = embedding / embedding.norm(dim=1, keepdim=True) @ weight.T + bias
    with torch.no_grad():
        assert torch.allclose(head(Features(embedding))["hash"], expected, atol=1e-6)
        assert torch.allclose(head(Features(7 * embedding))["hash"], expected, atol=1e-6)
        assert torch.isfinite(head(Features(torch.zeros(1, 6)))["hash"]).all()
    assert list(head(Features(embedding))) == ["hash"]
    assert (head.bits, head.classes) == (9, 0)


def test_a_fitted_head_is_written_and_read_as_it_is(tmp_path: Path) -> None:
    facts = {"kind": "itq", "seed": 3}
    head = ProjectionHead(fit_itq(embeddings(40), 16, 3), facts).requires_grad_(False)
    assert head.facts() == facts
    files = head.files()
    assert list(files) == ["head.npz"]
    (tmp_path / "head.npz").write_bytes(files["head.npz"])
    again = ProjectionHead.read(tmp_path / "head.npz", facts)
    assert again.facts() == facts
    assert all(torch.equal(again.state_dict()[name], v) for name, v in head.state_dict().items())


def test_a_head_is_written_whether_it_could_be_trained_or_not() -> None:
    head = ProjectionHead(random_hyperplanes(6, 8), {})
    assert head.linear.weight.requires_grad
    assert len(head.files()["head.npz"]) > 0
