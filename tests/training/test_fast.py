"""The recipe for small budgets: heads from features, one cosine loss, in plain float64 code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import TrainingError
from fgdeploy.models.heads.base import Features
from fgdeploy.models.heads.hash import ClassHashHead, FoldedHead
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.training import linear_probe, losses
from fgdeploy.training.fast import SCALE, FastObjective, start_heads
from fgdeploy.training.objective import STUDENT
from fgdeploy.training.target_codes import Signs, class_codes, label_codes
from tests.checks import refused
from tests.training import setups
from tests.training.setups import BITS, CLASSES, COUNT, LABELS, WIDTH, Array


def test_fast_targets_are_class_codes_of_the_student_s_features() -> None:
    given = setups.made()
    objective = FastObjective(given.setup)
    assert given.made == [True]
    assert given.embedded == [objective.student]
    assert list(objective.networks()) == [STUDENT]
    by_class = class_codes(setups.embed(objective.student), LABELS, BITS, 5)
    np.testing.assert_array_equal(objective.targets, by_class[LABELS])
    assert objective.targets.dtype == np.int8
    other = FastObjective(setups.made(seed=6).setup)
    assert (other.targets != objective.targets).any()


def _expected_code_term(hashes: Tensor, labels: Tensor, by_class: Signs) -> float:
    h = setups.array(hashes)
    cosines = h @ by_class.T / np.sqrt((h**2).sum(axis=1, keepdims=True) * BITS)
    return setups.entropy(torch.from_numpy(8.0 * cosines), labels)


def test_the_fast_loss_is_the_cross_entropy_of_code_cosines() -> None:
    assert SCALE == 8.0
    objective = FastObjective(setups.made("start").setup)
    by_class = class_codes(setups.embed(objective.student), LABELS, BITS, 5)
    batch = setups.batch()
    terms = objective(batch)
    with torch.no_grad():
        hashes, _ = setups.answer(objective.student, batch.images)
    expected = _expected_code_term(hashes, batch.labels, by_class)
    assert setups.values(terms) == pytest.approx({"code": expected}, rel=1e-5)
    losses.total(terms).backward()
    assert all(parameter.grad is not None for parameter in objective.student.parameters())


@pytest.mark.parametrize("targets", [None, setups.frozen_teacher_and_codes()[1]])
def test_a_frozen_teacher_adds_its_transfer_to_the_fast_loss(targets: Signs | None) -> None:
    teacher = setups.frozen_teacher_and_codes()[0]
    objective = FastObjective(setups.made("start", teacher=teacher, teacher_targets=targets).setup)
    assert list(objective.networks()) == [STUDENT]
    batch = setups.batch()
    terms = objective(batch)
    with torch.no_grad():
        hashes, _ = setups.answer(objective.student, batch.images)
        teacher_hashes, _ = setups.answer(teacher, batch.images)
    by_class = np.stack([objective.targets[label == LABELS][0] for label in range(CLASSES)])
    expected = {
        "code": _expected_code_term(hashes, batch.labels, by_class),
        "transfer": setups.one_minus_cosine(hashes, teacher_hashes),
    }
    assert setups.values(terms) == pytest.approx(expected, rel=1e-5)
    losses.total(terms).backward()
    assert all(not p.requires_grad and p.grad is None for p in teacher.parameters())


def test_the_teacher_s_codes_are_taken_by_majority() -> None:
    chooser = np.random.default_rng(8)
    by_class = chooser.choice(np.array([-1, 1], np.int8), (CLASSES, BITS))
    codes = by_class[LABELS]
    for label in range(CLASSES):  # five images each: two odd ones are outvoted
        odd = np.flatnonzero(label == LABELS)[[0, 3]]
        codes[odd] = chooser.choice(np.array([-1, 1], np.int8), (2, BITS))
    assert (codes != by_class[LABELS]).any()
    teacher = setups.frozen_teacher_and_codes()[0]
    objective = FastObjective(setups.made(teacher=teacher, teacher_targets=codes).setup)
    np.testing.assert_array_equal(objective.targets, by_class[LABELS])


def test_a_tie_of_codes_is_plus_one() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    codes = np.ones((8, BITS), np.int8)
    codes[1], codes[2:4, :3] = -1, -1
    objective = FastObjective(
        setups.made(
            "start", labels=labels, embed=lambda net: setups.embed(net)[:8], teacher_targets=codes
        ).setup
    )
    expected = np.ones((8, BITS), np.int8)
    expected[2:4, :3] = -1
    np.testing.assert_array_equal(objective.targets, expected)


def test_parts_of_the_fast_objective_can_be_left_out() -> None:
    whole = FastObjective(setups.made().setup)
    untouched = setups.network(True, 1).head.state_dict()

    random = FastObjective(setups.made("start").setup)
    for name, value in random.student.head.state_dict().items():
        assert torch.equal(value, untouched[name])
    np.testing.assert_array_equal(random.targets, whole.targets)

    from_labels = FastObjective(setups.made("codes").setup)
    rows = label_codes(LABELS, BITS).astype(int)
    votes = np.stack([rows[label == LABELS].sum(axis=0) for label in range(CLASSES)])
    np.testing.assert_array_equal(from_labels.targets, np.where(votes >= 0, 1, -1)[LABELS])
    assert (from_labels.targets != whole.targets).any()

    given = setups.made("ctp")
    dense = FastObjective(given.setup)
    assert given.made == [False]
    assert dense.student.options == EETOptions(()) != whole.student.options


# Heads that start from features


def _ridge(embeddings: npt.NDArray[np.floating], wanted: Array, ridge: float) -> Array:
    """Return W (D + 1, K) of min |[X 1] W - wanted|^2 + penalty |W|^2, as one least-squares system.

    The penalty is `ridge` times the mean over columns of [X 1] of their squared length.
    """
    rows = np.concatenate([embeddings, np.ones((len(embeddings), 1))], axis=1).astype(np.float64)
    penalty = ridge * np.mean(np.square(rows).sum(axis=0))
    system = np.concatenate([rows, np.sqrt(penalty) * np.eye(rows.shape[1])])
    sides = np.concatenate([wanted, np.zeros((rows.shape[1], wanted.shape[1]))])
    return np.asarray(np.linalg.lstsq(system, sides, rcond=None)[0])


def _clusters(count: int, classes: int, seed: int) -> tuple[Array, npt.NDArray[np.int64]]:
    chooser = np.random.default_rng(seed)
    labels = chooser.integers(0, classes, count)
    means = chooser.standard_normal((classes, WIDTH))
    return means[labels] + 0.3 * chooser.standard_normal((count, WIDTH)) + 0.5, labels


# A head's outputs are this many times the regression on codes of -1 and +1.
HASH_SIZE = 3.0


@pytest.mark.parametrize(("ridge", "spread"), [(3e-2, 10.0), (1e-3, 10.0), (1.0, 2.5)])
@pytest.mark.parametrize(("count", "classes"), [(20, 3), (200, 10)])
def test_the_product_of_the_heads_is_the_ridge_regression_on_the_codes(
    count: int, classes: int, ridge: float, spread: float
) -> None:
    rows, labels = _clusters(count, classes, 0)
    codes = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (classes, BITS))
    heads = ClassHashHead(WIDTH, classes, BITS)
    start_heads(heads, linear_probe.fit(rows, labels, classes, ridge), codes, spread)
    folded = FoldedHead(heads).linear
    expected = HASH_SIZE * _ridge(rows, codes[labels].astype(np.float64), ridge)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(setups.array(folded.weight).T, expected[:-1], atol=1e-5)
    np.testing.assert_allclose(setups.array(folded.bias), expected[-1], atol=1e-5)
    # The class head alone: `spread` times the regression on one-hot labels.
    logits = spread * _ridge(rows, np.eye(classes)[labels], ridge)
    np.testing.assert_allclose(setups.array(heads.head.weight).T, logits[:-1], atol=1e-5)
    np.testing.assert_allclose(setups.array(heads.head.bias), logits[-1], atol=1e-5)


def test_the_fast_objective_starts_its_heads_from_the_features() -> None:
    objective = FastObjective(setups.made().setup)
    rows = setups.embed(objective.student)
    expected = HASH_SIZE * _ridge(rows, objective.targets.astype(np.float64), 3e-2)
    head = objective.student.head
    assert isinstance(head, ClassHashHead)
    folded = FoldedHead(head).linear
    np.testing.assert_allclose(setups.array(folded.weight).T, expected[:-1], atol=1e-5)
    np.testing.assert_allclose(setups.array(folded.bias), expected[-1], atol=1e-5)


def test_heads_that_started_from_features_hash_new_images_of_a_class_to_its_code() -> None:
    rows, labels = _clusters(400, 10, 0)
    codes = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (10, BITS))
    heads = ClassHashHead(WIDTH, 10, BITS)
    start_heads(heads, linear_probe.fit(rows[:200], labels[:200], 10), codes)
    with torch.no_grad():
        found = heads(Features(torch.from_numpy(rows[200:]).float()))
    hashes, logits = found["hash"], found["logits"]
    assert ((hashes.numpy() > 0) == (codes[labels[200:]] > 0)).mean() > 0.98
    assert (logits.numpy().argmax(axis=1) == labels[200:]).mean() > 0.98
    sure = logits.softmax(dim=1).amax(dim=1)
    assert 0.3 < sure.mean() < 0.9999  # neither flat (0.1) nor hard


def test_features_that_are_no_numbers_stop_before_any_training() -> None:
    rows = np.full((COUNT, WIDTH), np.nan, np.float32)
    with refused(TrainingError, "NaN or infinite features before any training; check --weights"):
        FastObjective(setups.made(embed=lambda net: rows).setup)
