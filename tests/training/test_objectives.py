"""The objectives on a small ViT, against the formulas of docs/methods.md 1.3 in plain code."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm.optim
import torch
from torch import Tensor

from fgdeploy.models import vit
from fgdeploy.models.eet import eet
from fgdeploy.models.heads import ClassHashHead
from fgdeploy.models.stages import Stage
from fgdeploy.training import losses
from fgdeploy.training.eet import PAPER, EETObjective
from fgdeploy.training.fast import SCALE, FastObjective, start_heads
from fgdeploy.training.guidance import with_saliency
from fgdeploy.training.network import HashNet
from fgdeploy.training.objective import STUDENT, TEACHER, Batch, Objective, Setup
from fgdeploy.training.target_codes import Signs, class_codes, label_codes

Array = npt.NDArray[np.float64]
SIZE, PATCH, BITS, CLASSES, COUNT, WIDTH = 64, 16, 16, 4, 20, 64
STAGES = (Stage(2, 8), Stage(4, 4))
LABELS = np.random.default_rng(0).permutation(np.arange(COUNT) % CLASSES)

STUDENT_TERMS = {"hash", "class", "guidance", "transfer"}
TEACHER_TERMS = {"teacher_hash", "teacher_class"}


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGES = _draw(COUNT, 3, SIZE, SIZE, seed=1)


def _net(pruned: bool, seed: int) -> HashNet:
    """Return a network whose heads are large enough to matter, each from its own seed."""
    stages = STAGES if pruned else ()
    net = HashNet(eet(vit.create("test_vit", SIZE, seed=seed), stages), stages, CLASSES, BITS)
    with torch.no_grad():
        for number, parameter in enumerate(net.heads.parameters()):
            parameter.copy_(0.3 * _draw(*parameter.shape, seed=10 * seed + number))
    return net


def _embed(net: HashNet) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        rows: npt.NDArray[np.float32] = net.encoder(IMAGES).numpy()
    return rows


@dataclass
class Made:
    """A setup, and which networks were made (pruned or not) and embedded for it."""

    setup: Setup
    made: list[bool]
    embedded: list[HashNet]


def _setup(*without: str, **changes: Any) -> Made:
    made: list[bool] = []
    embedded: list[HashNet] = []

    def make(pruned: bool) -> HashNet:
        made.append(pruned)
        return _net(pruned, len(made))

    def embed(net: HashNet) -> npt.NDArray[np.float32]:
        embedded.append(net)
        return _embed(net)

    setup = Setup(
        make=make,
        embed=embed,
        labels=LABELS,
        classes=CLASSES,
        bits=BITS,
        patch=PATCH,
        seed=5,
        without=frozenset(without),
    )
    return Made(dataclasses.replace(setup, **changes), made, embedded)


def _batch(*rows: int) -> Batch:
    """Return the images at `rows` of the set, by default some in no order."""
    which = torch.tensor(rows or (7, 2, 19, 0, 11, 4))
    return Batch(IMAGES[which], torch.from_numpy(LABELS)[which], which)


def _frozen_teacher() -> tuple[HashNet, Signs]:
    codes = np.random.default_rng(3).choice(np.array([-1, 1], np.int8), (COUNT, BITS))
    return _net(False, 77), codes


def _norm(gradients: tuple[Tensor | None, ...]) -> float:
    return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))


# The formulas, in float64 NumPy


def _array(x: Tensor) -> Array:
    return x.detach().double().numpy()


def _squares(hashes: Tensor, codes: Signs) -> float:
    return float(np.mean((_array(hashes) - codes) ** 2))


def _entropy(logits: Tensor, labels: Tensor) -> float:
    y = _array(logits)
    logs = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    return float(-np.mean([row[label] for row, label in zip(logs, labels.tolist(), strict=True)]))


def _one_minus_cosine(one: Tensor, two: Tensor) -> float:
    a, b = _array(one), _array(two)
    lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(np.mean(1 - (a * b).sum(axis=1) / lengths))


def _hidden(images: Tensor, scores: Tensor, transposed: bool) -> Tensor:
    """Return images without their four most salient patches, patch by patch."""
    hidden = images.clone()
    for image, row in zip(hidden, scores.tolist(), strict=True):
        for place in sorted(range(len(row)), key=lambda n: -row[n])[:4]:
            down, right = divmod(place, SIZE // PATCH)
            if transposed:
                down, right = right, down
            top, left = down * PATCH, right * PATCH
            image[:, top : top + PATCH, left : left + PATCH] = 0
    return hidden


def _expected_terms(
    student: HashNet, teacher: HashNet, codes: Signs, batch: Batch, transposed: bool = False
) -> dict[str, float]:
    """L_student = MSE(h, b) + 0.1 (CE + CE') + (1 - cos); L_teacher = CE + MSE."""
    with torch.no_grad():
        hashes, logits = student(batch.images)
        teacher_hashes, teacher_logits = teacher(batch.images)
        _, scores = with_saliency(teacher.encoder, batch.images)
        hidden_logits = student(_hidden(batch.images, scores, transposed))[1]
    return {
        "hash": _squares(hashes, codes),
        "class": 0.1 * _entropy(logits, batch.labels),
        "guidance": 0.1 * _entropy(hidden_logits, batch.labels),
        "transfer": _one_minus_cosine(hashes, teacher_hashes),
        "teacher_hash": _squares(teacher_hashes, codes),
        "teacher_class": _entropy(teacher_logits, batch.labels),
    }


def _values(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


# EET's objective


@pytest.mark.parametrize("transposed", [False, True])
def test_eet_s_terms_are_those_of_the_paper(transposed: bool) -> None:
    objective = EETObjective(_setup(transposed_mask=transposed).setup)
    batch = _batch()
    terms = objective(batch)
    assert objective.teacher is not None
    expected = _expected_terms(
        objective.student,
        objective.teacher,
        label_codes(LABELS, BITS)[batch.rows.numpy()],
        batch,
        transposed,
    )
    assert _values(terms) == pytest.approx(expected, rel=1e-5)
    assert losses.total(terms).item() == pytest.approx(sum(expected.values()), rel=1e-5)
    # Every term has a share in the total, so none could be left out unseen.
    assert min(expected.values()) > 1e-2


def test_eet_makes_a_pruned_student_and_a_dense_teacher() -> None:
    made = _setup()
    objective = EETObjective(made.setup)
    assert made.made == [True, False]
    assert made.embedded == []  # the codes come from labels alone
    assert list(objective.networks()) == [STUDENT, TEACHER]
    assert objective.networks()[STUDENT].stages == STAGES
    assert objective.networks()[TEACHER].stages == ()
    np.testing.assert_array_equal(objective.targets, label_codes(LABELS, BITS))
    assert all(parameter.requires_grad for parameter in objective.parameters())
    student, teacher = (set(net.parameters()) for net in objective.networks().values())
    assert not student & teacher


def test_the_target_is_that_of_the_image_not_of_its_place_in_the_batch() -> None:
    objective = EETObjective(_setup("dkt", "drg").setup)
    values = [_values(objective(_batch(row)))["hash"] for row in range(COUNT)]
    together = _values(objective(_batch(*reversed(range(COUNT)))))["hash"]
    assert together == pytest.approx(np.mean(values), rel=1e-5)
    with torch.no_grad():
        hashes = objective.student(IMAGES)[0]
    for row, value in enumerate(values):
        assert value == pytest.approx(
            _squares(hashes[row : row + 1], objective.targets[row : row + 1]), rel=1e-5
        )


@pytest.mark.parametrize(
    ("without", "terms", "made"),
    [
        ((), STUDENT_TERMS | TEACHER_TERMS, [True, False]),
        (("dkt",), STUDENT_TERMS - {"transfer"} | TEACHER_TERMS, [True, False]),
        (("drg",), STUDENT_TERMS - {"guidance"} | TEACHER_TERMS, [True, False]),
        (("ctp",), STUDENT_TERMS | TEACHER_TERMS, [False, False]),
        (("dkt", "drg"), {"hash", "class"}, [True]),
        (("ctp", "dkt", "drg"), {"hash", "class"}, [False]),
    ],
)
def test_parts_of_eet_can_be_left_out(
    without: tuple[str, ...], terms: set[str], made: list[bool]
) -> None:
    assert set(without) <= set(PAPER.parts)
    setup = _setup(*without)
    objective = EETObjective(setup.setup)
    found = objective(_batch())
    assert set(found) == terms
    assert setup.made == made
    names = [STUDENT, TEACHER][: len(made)]
    assert list(objective.networks()) == names
    assert objective.student.stages == (STAGES if made[0] else ())
    trained = [id(p) for net in objective.networks().values() for p in net.parameters()]
    assert trained == [id(parameter) for parameter in objective.parameters()]
    if len(made) == 2:
        assert objective.teacher is not None
        codes = objective.targets[_batch().rows.numpy()]
        expected = _expected_terms(objective.student, objective.teacher, codes, _batch())
        assert _values(found) == pytest.approx({name: expected[name] for name in terms}, rel=1e-5)


def test_each_term_teaches_one_network() -> None:
    objective = EETObjective(_setup().setup)
    assert objective.teacher is not None
    nets = {
        STUDENT: list(objective.student.parameters()),
        TEACHER: list(objective.teacher.parameters()),
    }
    terms = objective(_batch())
    assert set(terms) == STUDENT_TERMS | TEACHER_TERMS
    for name, term in terms.items():
        learns = TEACHER if name.startswith("teacher_") else STUDENT
        for net, parameters in nets.items():
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            if net == learns:
                assert _norm(gradients) > 1e-4, name
            else:
                assert all(gradient is None for gradient in gradients), (name, net)


def _momentum(groups: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
        groups, opt=PAPER.optimizer, lr=0.01, weight_decay=0.0, momentum=PAPER.momentum
    )
    return optimizer


def test_one_optimiser_makes_the_steps_of_two() -> None:
    """The authors step student and teacher with an SGD each; one sum and one SGD are the same."""
    objective = EETObjective(_setup().setup)
    student, teacher = copy.deepcopy(objective.student), copy.deepcopy(objective.teacher)
    assert teacher is not None
    joint = _momentum(objective.parameter_groups(PAPER))
    alone = {
        net: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9) for net in (student, teacher)
    }
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    for rows in ((0, 5, 9, 13), (3, 8, 1, 17), (2, 6, 10, 19)):
        batch = _batch(*rows)
        joint.zero_grad()
        losses.total(objective(batch)).backward()
        joint.step()

        codes = torch.from_numpy(objective.targets).float()[batch.rows]
        mse, entropy = torch.nn.functional.mse_loss, torch.nn.functional.cross_entropy
        hashes, logits = student(batch.images)
        teacher_hashes, teacher_logits = teacher(batch.images)
        with torch.no_grad():
            _, scores = with_saliency(teacher.encoder, batch.images)
            hidden = _hidden(batch.images, scores, transposed=False)
        cosine = torch.cosine_similarity(hashes, teacher_hashes.detach())
        guided = entropy(student(hidden)[1], batch.labels)
        loss = mse(hashes, codes) + (1 - cosine).mean()
        loss = loss + 0.1 * (entropy(logits, batch.labels) + guided)
        own = entropy(teacher_logits, batch.labels) + mse(teacher_hashes, codes)
        for net, value in ((student, loss), (teacher, own)):
            alone[net].zero_grad()
            value.backward()
            alone[net].step()
    for prefix, net in (("student", student), ("teacher", teacher)):
        for name, value in net.state_dict().items():
            found = objective.state_dict()[f"{prefix}.{name}"]
            assert torch.allclose(found, value, rtol=0, atol=2e-6), (prefix, name)
        moved = [
            float((value - start[f"{prefix}.{name}"]).abs().max())
            for name, value in net.state_dict().items()
        ]
        assert min(moved) > 2e-5, prefix  # far more than the tolerance


@pytest.mark.parametrize("without", [(), ("dkt",), ("drg",)])
def test_a_frozen_teacher_teaches_and_does_not_learn(without: tuple[str, ...]) -> None:
    teacher, codes = _frozen_teacher()
    made = _setup(*without, teacher=teacher, teacher_targets=codes)
    objective = EETObjective(made.setup)
    assert made.made == [True]
    assert list(objective.networks()) == [STUDENT]
    assert np.array_equal(objective.targets, codes)
    batch = _batch()
    before = copy.deepcopy(teacher.state_dict())
    terms = objective(batch)
    expected = _expected_terms(objective.student, teacher, codes[batch.rows.numpy()], batch)
    wanted = STUDENT_TERMS - {{"dkt": "transfer", "drg": "guidance"}[part] for part in without}
    assert _values(terms) == pytest.approx({name: expected[name] for name in wanted}, rel=1e-5)
    optimizer = _momentum(objective.parameter_groups(PAPER))
    losses.total(terms).backward()
    optimizer.step()
    assert all(not p.requires_grad and p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in objective.student.parameters())


def test_a_frozen_teacher_without_known_codes_leaves_those_from_labels() -> None:
    objective = EETObjective(_setup(teacher=_frozen_teacher()[0]).setup)
    np.testing.assert_array_equal(objective.targets, label_codes(LABELS, BITS))


def test_a_frozen_teacher_that_has_nothing_to_teach_still_gives_its_codes() -> None:
    teacher, codes = _frozen_teacher()
    objective = EETObjective(_setup("dkt", "drg", teacher=teacher, teacher_targets=codes).setup)
    assert objective.teacher is None
    assert np.array_equal(objective.targets, codes)
    assert set(objective(_batch())) == {"hash", "class"}


def test_the_transposed_mask_hides_something_else() -> None:
    plain, mirrored = (
        _values(EETObjective(_setup(transposed_mask=mask).setup)(_batch()))
        for mask in (False, True)
    )
    assert plain["guidance"] != pytest.approx(mirrored["guidance"], rel=1e-4)
    del plain["guidance"], mirrored["guidance"]
    assert plain == pytest.approx(mirrored, rel=1e-6)


# The fast objective


def test_fast_targets_are_class_codes_of_the_student_s_features() -> None:
    made = _setup()
    objective = FastObjective(made.setup)
    assert made.made == [True]
    assert made.embedded == [objective.student]
    assert list(objective.networks()) == [STUDENT]
    by_class = class_codes(_embed(objective.student), LABELS, BITS, 5)
    np.testing.assert_array_equal(objective.targets, by_class[LABELS])
    assert objective.targets.dtype == np.int8
    other = FastObjective(_setup(seed=6).setup)
    assert (other.targets != objective.targets).any()


def _expected_code_term(hashes: Tensor, labels: Tensor, by_class: Signs) -> float:
    h = _array(hashes)
    cosines = h @ by_class.T / np.sqrt((h**2).sum(axis=1, keepdims=True) * BITS)
    return _entropy(torch.from_numpy(8.0 * cosines), labels)


def test_the_fast_loss_is_the_cross_entropy_of_code_cosines() -> None:
    assert SCALE == 8.0
    objective = FastObjective(_setup("start").setup)
    by_class = class_codes(_embed(objective.student), LABELS, BITS, 5)
    batch = _batch()
    terms = objective(batch)
    with torch.no_grad():
        hashes, _ = objective.student(batch.images)
    expected = _expected_code_term(hashes, batch.labels, by_class)
    assert _values(terms) == pytest.approx({"code": expected}, rel=1e-5)
    losses.total(terms).backward()
    assert all(parameter.grad is not None for parameter in objective.student.parameters())


@pytest.mark.parametrize("targets", [None, _frozen_teacher()[1]])
def test_a_frozen_teacher_adds_its_transfer_to_the_fast_loss(targets: Signs | None) -> None:
    teacher = _frozen_teacher()[0]
    objective = FastObjective(_setup("start", teacher=teacher, teacher_targets=targets).setup)
    assert list(objective.networks()) == [STUDENT]
    batch = _batch()
    terms = objective(batch)
    with torch.no_grad():
        hashes, _ = objective.student(batch.images)
        teacher_hashes, _ = teacher(batch.images)
    by_class = np.stack([objective.targets[label == LABELS][0] for label in range(CLASSES)])
    expected = {
        "code": _expected_code_term(hashes, batch.labels, by_class),
        "transfer": _one_minus_cosine(hashes, teacher_hashes),
    }
    assert _values(terms) == pytest.approx(expected, rel=1e-5)
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
    teacher = _frozen_teacher()[0]
    objective = FastObjective(_setup(teacher=teacher, teacher_targets=codes).setup)
    np.testing.assert_array_equal(objective.targets, by_class[LABELS])


def test_a_tie_of_codes_is_plus_one() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    codes = np.ones((8, BITS), np.int8)
    codes[1], codes[2:4, :3] = -1, -1
    objective = FastObjective(
        _setup(
            "start", labels=labels, embed=lambda net: _embed(net)[:8], teacher_targets=codes
        ).setup
    )
    expected = np.ones((8, BITS), np.int8)
    expected[2:4, :3] = -1
    np.testing.assert_array_equal(objective.targets, expected)


def test_parts_of_the_fast_objective_can_be_left_out() -> None:
    whole = FastObjective(_setup().setup)
    untouched = _net(True, 1).heads.state_dict()

    random = FastObjective(_setup("start").setup)
    for name, value in random.student.heads.state_dict().items():
        assert torch.equal(value, untouched[name])
    np.testing.assert_array_equal(random.targets, whole.targets)

    from_labels = FastObjective(_setup("codes").setup)
    rows = label_codes(LABELS, BITS).astype(int)
    votes = np.stack([rows[label == LABELS].sum(axis=0) for label in range(CLASSES)])
    np.testing.assert_array_equal(from_labels.targets, np.where(votes >= 0, 1, -1)[LABELS])
    assert (from_labels.targets != whole.targets).any()

    made = _setup("ctp")
    dense = FastObjective(made.setup)
    assert made.made == [False]
    assert dense.student.stages == () != whole.student.stages


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
    start_heads(heads, rows, labels, codes, ridge, spread)
    folded = heads.folded()
    expected = HASH_SIZE * _ridge(rows, codes[labels].astype(np.float64), ridge)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(_array(folded.weight).T, expected[:-1], atol=1e-5)
    np.testing.assert_allclose(_array(folded.bias), expected[-1], atol=1e-5)
    # The class head alone: `spread` times the regression on one-hot labels.
    logits = spread * _ridge(rows, np.eye(classes)[labels], ridge)
    np.testing.assert_allclose(_array(heads.head.weight).T, logits[:-1], atol=1e-5)
    np.testing.assert_allclose(_array(heads.head.bias), logits[-1], atol=1e-5)


def test_the_default_ridge_and_spread() -> None:
    rows, labels = _clusters(50, 5, 0)
    codes = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (5, BITS))
    one, two = ClassHashHead(WIDTH, 5, BITS), ClassHashHead(WIDTH, 5, BITS)
    start_heads(one, rows, labels, codes)
    start_heads(two, rows, labels, codes, ridge=3e-2, spread=10.0)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])


def test_the_fast_objective_starts_its_heads_from_the_features() -> None:
    objective = FastObjective(_setup().setup)
    rows = _embed(objective.student)
    expected = HASH_SIZE * _ridge(rows, objective.targets.astype(np.float64), 3e-2)
    folded = objective.student.heads.folded()
    np.testing.assert_allclose(_array(folded.weight).T, expected[:-1], atol=1e-5)
    np.testing.assert_allclose(_array(folded.bias), expected[-1], atol=1e-5)


def test_heads_that_started_from_features_hash_new_images_of_a_class_to_its_code() -> None:
    rows, labels = _clusters(400, 10, 0)
    codes = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (10, BITS))
    heads = ClassHashHead(WIDTH, 10, BITS)
    start_heads(heads, rows[:200], labels[:200], codes)
    with torch.no_grad():
        hashes, logits = heads(torch.from_numpy(rows[200:]).float())
    assert ((hashes.numpy() > 0) == (codes[labels[200:]] > 0)).mean() > 0.98
    assert (logits.numpy().argmax(axis=1) == labels[200:]).mean() > 0.98
    sure = logits.softmax(dim=1).amax(dim=1)
    assert 0.3 < sure.mean() < 0.9999  # neither flat (0.1) nor hard


# Both


@pytest.mark.parametrize("build", [EETObjective, FastObjective])
def test_without_gradients_an_objective_has_none(build: Callable[[Setup], Objective]) -> None:
    objective = build(_setup().setup)
    with torch.no_grad():
        terms = objective(_batch())
    assert all(not term.requires_grad for term in terms.values())
    assert all(term.requires_grad and term.shape == () for term in objective(_batch()).values())
