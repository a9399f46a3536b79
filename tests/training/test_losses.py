"""The terms of the losses against numbers worked out by hand and plain float64 formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fgdeploy.training import losses

Array = npt.NDArray[np.float64]
ROWS, BITS, CLASSES = 5, 12, 7


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def tensor(values: Array) -> Tensor:
    return torch.from_numpy(values)


def log_softmax(logits: Array) -> Array:
    high = logits.max(axis=1, keepdims=True)
    return np.asarray(logits - high - np.log(np.exp(logits - high).sum(axis=1, keepdims=True)))


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)))


def codes(seed: int = 1, rows: int = CLASSES) -> Array:
    return np.where(random(rows, BITS, seed=seed) > 0, 1.0, -1.0)


LABELS = np.array([3, 0, 6, 3, 1])


# By hand


def test_hash_regression_by_hand() -> None:
    hashes = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    targets = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    # squares 1, 0, 1, 4 over four bits: the mean is over bits and images, not a sum over bits
    assert losses.hash_regression(hashes, targets).item() == pytest.approx(1.5)


def test_classification_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    # p = 3/4 and 1/2
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert losses.classification(logits, torch.tensor([1, 0])).item() == pytest.approx(expected)


def test_label_smoothing_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    # 0.2 of the weight is shared by both classes: 0.9 on the right one, 0.1 on the other
    expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    found = losses.classification(logits, torch.tensor([1]), smoothing=0.2)
    assert found.item() == pytest.approx(expected)


def test_knowledge_transfer_by_hand() -> None:
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[4.0, 3.0], [-2.0, 0.0], [0.5, 0.5]])
    # cosines 24/25, -1 and 1
    expected = (1 / 25 + 2 + 0) / 3
    assert losses.knowledge_transfer(student, teacher).item() == pytest.approx(expected)


def test_code_cosine_by_hand() -> None:
    hashes = torch.tensor([[3.0, 4.0]])
    class_codes = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    # cosines 7 / (5 sqrt 2) and -1 / (5 sqrt 2), so at scale 2 the logits differ by 16 / (5 sqrt 2)
    gap = 16 / (5 * math.sqrt(2))
    near = losses.code_cosine(hashes, torch.tensor([0]), class_codes, 2.0)
    far = losses.code_cosine(hashes, torch.tensor([1]), class_codes, 2.0)
    assert near.item() == pytest.approx(math.log(1 + math.exp(-gap)))
    assert far.item() == pytest.approx(math.log(1 + math.exp(gap)))


def test_total_by_hand() -> None:
    terms = {"one": torch.tensor(1.5), "two": torch.tensor(-0.25), "three": torch.tensor(4.0)}
    assert losses.total(terms).item() == 5.25
    assert losses.total({"one": torch.tensor(1.5)}).shape == ()


def test_the_gradient_of_the_total_is_that_of_each_term() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    losses.total({"one": x[0] * 3, "two": x[1] ** 2}).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 4.0]


# Plain formulas


def test_hash_regression_is_the_mean_square() -> None:
    hashes, targets = random(ROWS, BITS), codes(rows=ROWS)
    found = losses.hash_regression(tensor(hashes), tensor(targets)).item()
    assert found == pytest.approx(((hashes - targets) ** 2).sum() / (ROWS * BITS), abs=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_classification_is_the_cross_entropy(smoothing: float) -> None:
    logits = 4 * random(ROWS, CLASSES)
    logs = log_softmax(logits)
    wanted = np.full((ROWS, CLASSES), smoothing / CLASSES)
    wanted[np.arange(ROWS), LABELS] += 1 - smoothing
    found = losses.classification(tensor(logits), torch.from_numpy(LABELS), smoothing).item()
    assert found == pytest.approx(-(wanted * logs).sum() / ROWS, abs=1e-13)


def test_knowledge_transfer_is_one_minus_the_cosine() -> None:
    student, teacher = random(ROWS, BITS), random(ROWS, BITS, seed=3)
    expected = np.mean([1 - s @ t for s, t in zip(unit(student), unit(teacher), strict=True)])
    found = losses.knowledge_transfer(tensor(student), tensor(teacher)).item()
    assert found == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("scale", [0.5, 8.0, 30.0])
def test_code_cosine_is_the_cross_entropy_of_scaled_cosines(scale: float) -> None:
    hashes, class_codes = random(ROWS, BITS), codes()
    logs = log_softmax(scale * unit(hashes) @ class_codes.T / math.sqrt(BITS))
    labels = torch.from_numpy(LABELS)
    found = losses.code_cosine(tensor(hashes), labels, tensor(class_codes), scale).item()
    assert found == pytest.approx(-logs[np.arange(ROWS), LABELS].mean(), abs=1e-13)


# What they do not depend on


def test_cosine_losses_do_not_depend_on_the_length_of_a_hash() -> None:
    hashes, others = tensor(random(ROWS, BITS)), tensor(random(ROWS, BITS, seed=3))
    lengths = torch.tensor([[0.01], [1.0], [7.0], [100.0], [3.0]], dtype=torch.float64)
    labels, class_codes = torch.from_numpy(LABELS), tensor(codes())
    for plain, scaled in (
        (
            losses.knowledge_transfer(hashes, others),
            losses.knowledge_transfer(hashes * lengths, others * lengths.flip(0)),
        ),
        (
            losses.code_cosine(hashes, labels, class_codes, 8.0),
            losses.code_cosine(hashes * lengths, labels, class_codes * 5, 8.0),
        ),
    ):
        assert scaled.item() == pytest.approx(plain.item(), abs=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        lambda h: losses.hash_regression(h, tensor(codes(rows=ROWS))[: len(h)]),
        lambda h: losses.classification(h, torch.from_numpy(LABELS)[: len(h)]),
        lambda h: losses.knowledge_transfer(h, tensor(random(ROWS, BITS, seed=3))[: len(h)]),
        lambda h: losses.code_cosine(h, torch.from_numpy(LABELS)[: len(h)], tensor(codes()), 8.0),
    ],
    ids=["hash_regression", "classification", "knowledge_transfer", "code_cosine"],
)
def test_every_term_is_a_mean_over_the_batch(loss: Callable[[Tensor], Tensor]) -> None:
    """A batch's loss is the mean of prefixes' increments, so its size does not change the rate."""
    hashes = tensor(random(ROWS, BITS))
    sums = [0.0, *(loss(hashes[: count + 1]).item() * (count + 1) for count in range(ROWS))]
    shares = np.diff(sums)  # what each image adds
    assert loss(hashes).item() == pytest.approx(shares.mean(), abs=1e-12)
    first = loss(hashes[:1]).item()
    assert shares[0] == pytest.approx(first, abs=1e-12)
    assert np.ptp(shares) > 1e-3


# Gradients


def test_no_gradient_reaches_the_teacher() -> None:
    student = tensor(random(ROWS, BITS)).requires_grad_()
    teacher = tensor(random(ROWS, BITS, seed=3)).requires_grad_()
    losses.knowledge_transfer(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    # d cos(s, t) / ds = (t/|t| - cos s/|s|) / |s|
    s, t = student.detach().numpy(), teacher.detach().numpy()
    cosines = (unit(s) * unit(t)).sum(axis=1, keepdims=True)
    lengths = np.sqrt((s**2).sum(axis=1, keepdims=True))
    expected = -(unit(t) - cosines * unit(s)) / lengths / ROWS
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-14)


def test_a_hash_on_its_code_has_no_regression_gradient() -> None:
    targets = tensor(codes(rows=ROWS))
    hashes = targets.clone().requires_grad_()
    losses.hash_regression(hashes, targets).backward()
    assert hashes.grad is not None
    assert hashes.grad.abs().max() == 0


def test_code_cosine_turns_a_hash_to_its_code_and_from_the_others() -> None:
    scale, class_codes = 8.0, codes()
    hashes = tensor(random(ROWS, BITS)).requires_grad_()
    losses.code_cosine(hashes, torch.from_numpy(LABELS), tensor(class_codes), scale).backward()
    assert hashes.grad is not None
    h = hashes.detach().numpy()
    directions = class_codes / math.sqrt(BITS)
    share = np.exp(log_softmax(scale * unit(h) @ directions.T))
    pull = directions[LABELS] - share @ directions
    across = pull - (pull * unit(h)).sum(axis=1, keepdims=True) * unit(h)  # its length is free
    expected = -scale * across / np.sqrt((h**2).sum(axis=1, keepdims=True)) / ROWS
    np.testing.assert_allclose(hashes.grad.numpy(), expected, atol=1e-14)
