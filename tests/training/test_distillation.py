"""Training beside a teacher, against the formulas of docs/methods.md 1.3 in plain code."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import timm.optim
import torch

from fgdeploy.models.methods.eet import PAPER, EETOptions
from fgdeploy.training import losses
from fgdeploy.training.distillation import Distillation
from fgdeploy.training.objective import STUDENT, TEACHER
from fgdeploy.training.target_codes import label_codes
from tests.training import setups
from tests.training.setups import BITS, COUNT, IMAGES, LABELS, STAGES

STUDENT_TERMS = {"hash", "class", "guidance", "transfer"}
TEACHER_TERMS = {"teacher_hash", "teacher_class"}


@pytest.mark.parametrize("transposed", [False, True])
def test_eet_s_terms_are_those_of_the_paper(transposed: bool) -> None:
    objective = Distillation(setups.made(options=EETOptions(transposed_mask=transposed)).setup)
    batch = setups.batch()
    terms = objective(batch)
    assert objective.teacher is not None
    expected = setups.expected_terms(
        objective.student,
        objective.teacher,
        label_codes(LABELS, BITS)[batch.rows.numpy()],
        batch,
        transposed,
    )
    assert setups.values(terms) == pytest.approx(expected, rel=1e-5)
    assert losses.total(terms).item() == pytest.approx(sum(expected.values()), rel=1e-5)
    # Every term has a share in the total, so none could be left out unseen.
    assert min(expected.values()) > 1e-2


def test_eet_makes_a_pruned_student_and_a_dense_teacher() -> None:
    given = setups.made()
    objective = Distillation(given.setup)
    assert given.made == [True, False]
    assert given.embedded == []  # the codes come from labels alone
    assert list(objective.networks()) == [STUDENT, TEACHER]
    assert objective.networks()[STUDENT].options == EETOptions(STAGES)
    assert objective.networks()[TEACHER].options == EETOptions(())
    np.testing.assert_array_equal(objective.targets, label_codes(LABELS, BITS))
    assert all(parameter.requires_grad for parameter in objective.parameters())
    student, teacher = (set(net.parameters()) for net in objective.networks().values())
    assert not student & teacher


def test_the_target_is_that_of_the_image_not_of_its_place_in_the_batch() -> None:
    objective = Distillation(setups.made("dkt", "drg").setup)
    values = [setups.values(objective(setups.batch(row)))["hash"] for row in range(COUNT)]
    together = setups.values(objective(setups.batch(*reversed(range(COUNT)))))["hash"]
    assert together == pytest.approx(np.mean(values), rel=1e-5)
    with torch.no_grad():
        hashes = setups.answer(objective.student, IMAGES)[0]
    for row, value in enumerate(values):
        assert value == pytest.approx(
            setups.squares(hashes[row : row + 1], objective.targets[row : row + 1]), rel=1e-5
        )


@pytest.mark.parametrize(
    ("without", "terms", "kinds"),
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
    without: tuple[str, ...], terms: set[str], kinds: list[bool]
) -> None:
    assert set(without) <= set(PAPER.parts)
    given = setups.made(*without)
    objective = Distillation(given.setup)
    found = objective(setups.batch())
    assert set(found) == terms
    assert given.made == kinds
    names = [STUDENT, TEACHER][: len(kinds)]
    assert list(objective.networks()) == names
    assert objective.student.options == EETOptions(STAGES if kinds[0] else ())
    trained = [id(p) for net in objective.networks().values() for p in net.parameters()]
    assert trained == [id(parameter) for parameter in objective.parameters()]
    if len(kinds) == 2:
        assert objective.teacher is not None
        codes = objective.targets[setups.batch().rows.numpy()]
        expected = setups.expected_terms(
            objective.student, objective.teacher, codes, setups.batch()
        )
        assert setups.values(found) == pytest.approx(
            {name: expected[name] for name in terms}, rel=1e-5
        )


def test_each_term_teaches_one_network() -> None:
    objective = Distillation(setups.made().setup)
    assert objective.teacher is not None
    nets = {
        STUDENT: list(objective.student.parameters()),
        TEACHER: list(objective.teacher.parameters()),
    }
    terms = objective(setups.batch())
    assert set(terms) == STUDENT_TERMS | TEACHER_TERMS
    for name, term in terms.items():
        learns = TEACHER if name.startswith("teacher_") else STUDENT
        for net, parameters in nets.items():
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            if net == learns:
                assert setups.norm(gradients) > 1e-4, name
            else:
                assert all(gradient is None for gradient in gradients), (name, net)


def _momentum(groups: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
        groups, opt=PAPER.optimizer, lr=0.01, weight_decay=0.0, momentum=PAPER.momentum
    )
    return optimizer


def test_one_optimiser_makes_the_steps_of_two() -> None:
    """The authors step student and teacher with an SGD each; one sum and one SGD are the same."""
    objective = Distillation(setups.made().setup)
    student, teacher = copy.deepcopy(objective.student), copy.deepcopy(objective.teacher)
    assert teacher is not None
    joint = _momentum(objective.parameter_groups(PAPER))
    alone = {
        net: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9) for net in (student, teacher)
    }
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    for rows in ((0, 5, 9, 13), (3, 8, 1, 17), (2, 6, 10, 19)):
        batch = setups.batch(*rows)
        joint.zero_grad()
        losses.total(objective(batch)).backward()
        joint.step()

        codes = torch.from_numpy(objective.targets).float()[batch.rows]
        mse, cross_entropy = torch.nn.functional.mse_loss, torch.nn.functional.cross_entropy
        hashes, logits = setups.answer(student, batch.images)
        teacher_hashes, teacher_logits = setups.answer(teacher, batch.images)
        with torch.no_grad():
            scores = setups.saliency(teacher, batch.images)
            covered = setups.hidden(batch.images, scores, transposed=False)
        cosine = torch.cosine_similarity(hashes, teacher_hashes.detach())
        guided = cross_entropy(setups.answer(student, covered)[1], batch.labels)
        loss = mse(hashes, codes) + (1 - cosine).mean()
        loss = loss + 0.1 * (cross_entropy(logits, batch.labels) + guided)
        own = cross_entropy(teacher_logits, batch.labels) + mse(teacher_hashes, codes)
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
    teacher, codes = setups.frozen_teacher_and_codes()
    given = setups.made(*without, teacher=teacher, teacher_targets=codes)
    objective = Distillation(given.setup)
    assert given.made == [True]
    assert list(objective.networks()) == [STUDENT]
    assert np.array_equal(objective.targets, codes)
    batch = setups.batch()
    before = copy.deepcopy(teacher.state_dict())
    terms = objective(batch)
    expected = setups.expected_terms(objective.student, teacher, codes[batch.rows.numpy()], batch)
    wanted = STUDENT_TERMS - {{"dkt": "transfer", "drg": "guidance"}[part] for part in without}
    assert setups.values(terms) == pytest.approx(
        {name: expected[name] for name in wanted}, rel=1e-5
    )
    optimizer = _momentum(objective.parameter_groups(PAPER))
    losses.total(terms).backward()
    optimizer.step()
    assert all(not p.requires_grad and p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in objective.student.parameters())


def test_a_frozen_teacher_without_known_codes_leaves_those_from_labels() -> None:
    objective = Distillation(setups.made(teacher=setups.frozen_teacher_and_codes()[0]).setup)
    np.testing.assert_array_equal(objective.targets, label_codes(LABELS, BITS))


def test_a_frozen_teacher_that_has_nothing_to_teach_still_gives_its_codes() -> None:
    teacher, codes = setups.frozen_teacher_and_codes()
    objective = Distillation(
        setups.made("dkt", "drg", teacher=teacher, teacher_targets=codes).setup
    )
    assert objective.teacher is None
    assert np.array_equal(objective.targets, codes)
    assert set(objective(setups.batch())) == {"hash", "class"}


def test_the_transposed_mask_hides_something_else() -> None:
    plain, mirrored = (
        setups.values(
            Distillation(setups.made(options=EETOptions(transposed_mask=mask)).setup)(
                setups.batch()
            )
        )
        for mask in (False, True)
    )
    assert plain["guidance"] != pytest.approx(mirrored["guidance"], rel=1e-4)
    del plain["guidance"], mirrored["guidance"]
    assert plain == pytest.approx(mirrored, rel=1e-6)
