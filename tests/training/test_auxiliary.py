"""Penalties join the loss; features that are read out get class heads in the objective alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods.base import FAST
from fgdeploy.models.network import Network
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step
from fgdeploy.training import losses
from fgdeploy.training.auxiliary import AuxiliaryHeads
from fgdeploy.training.fast import FastObjective
from tests.training import setups


class Reading(Step):
    """Reads a feature out and asks a price, both in training; counts its calls."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.turn = torch.nn.Linear(setups.WIDTH, width)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        tokens = super().forward(block, tokens)
        if not self.training:
            return tokens
        self.calls: Tensor = self.calls + 1
        return tokens.having(
            tokens.x,
            penalties=(*tokens.penalties, self.turn.weight.square().sum()),
            readouts=(*tokens.readouts, self.turn(tokens.x.detach().mean(dim=1))),
        )


def _make(pruned: bool = True) -> Network:
    backbone = vit.create("test_vit", setups.SIZE, seed=1)
    torch.manual_seed(0)
    encoder = Encoder(backbone, setups.NORM, {2: Reading(24), 4: Reading(16)})
    return Network(encoder, ClassHashHead.fresh(setups.WIDTH, setups.CLASSES, setups.BITS))


@pytest.fixture
def objective() -> Iterator[FastObjective]:
    yield FastObjective(setups.made(make=_make).setup).train()


def test_each_readout_has_a_class_head_that_the_network_does_not_know(
    objective: FastObjective,
) -> None:
    batch = setups.batch()
    terms = objective(batch)
    assert list(terms) == ["code", "auxiliary", "penalty"]
    features = objective.student(batch.images)
    wanted, heads = 0.0, objective.auxiliary.heads
    assert [one[1].in_features for one in heads] == [24, 16]  # type: ignore[index]
    for head, one in zip(heads, features.readouts, strict=True):
        wanted += setups.entropy(head(one), batch.labels)
    assert terms["auxiliary"].item() == pytest.approx(wanted, rel=1e-5)
    prices = [features.penalties[0].item(), features.penalties[1].item()]
    assert terms["penalty"].item() == pytest.approx(sum(prices), rel=1e-6)
    losses.total(terms).backward()
    assert all(p.grad is not None for p in objective.auxiliary.parameters())
    assert not [name for name in objective.student.state() if "auxiliary" in name]
    assert {"auxiliary.heads.0.1.weight", "auxiliary.heads.1.0.bias"} <= set(objective.state_dict())


def test_auxiliary_heads_are_in_the_optimiser_and_the_same_for_the_same_seed(
    objective: FastObjective,
) -> None:
    groups = objective.parameter_groups(FAST)
    held = {id(p): group for group in groups for p in group["params"]}
    assert set(held) == {id(p) for p in objective.parameters()}
    for parameter in objective.auxiliary.parameters():
        assert held[id(parameter)]["lr_scale"] == FAST.head_rate
    torch.manual_seed(8)
    again = FastObjective(setups.made(make=_make).setup)
    for name, value in again.auxiliary.state_dict().items():
        assert torch.equal(value, objective.auxiliary.state_dict()[name])


def test_looking_for_readouts_leaves_the_network_and_the_generator_as_they_were() -> None:
    net, before = _make().eval(), _make().state()
    torch.manual_seed(4)
    AuxiliaryHeads(net, setups.CLASSES, 0)
    found = torch.rand(1)
    torch.manual_seed(4)
    assert torch.equal(found, torch.rand(1))
    assert not net.training
    assert int(net.encoder.walk.steps["2"].calls) == 0  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in net.state().items())


def test_a_network_that_reads_nothing_out_adds_no_terms() -> None:
    objective = FastObjective(setups.made().setup).train()
    assert list(objective(setups.batch())) == ["code"]
    assert not list(objective.auxiliary.parameters())


def test_a_frozen_teacher_stays_as_deployed(objective: FastObjective) -> None:
    teacher = _make()
    given: dict[str, Any] = {"teacher": teacher, "make": _make}
    taught = FastObjective(setups.made(**given).setup).train()
    assert taught.student.training and not teacher.training
    assert "transfer" in taught(setups.batch())
    assert int(teacher.encoder.walk.steps["2"].calls) == 0  # type: ignore[arg-type]
