"""CLCA's training of classes: the published part is untouched by the hash head beside it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.aggregate import Aggregate
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.reduced import PAPER
from fgdeploy.models.network import Network
from fgdeploy.training.class_first import ClassFirst
from fgdeploy.training.objective import STUDENT, build
from fgdeploy.training.target_codes import class_codes
from tests.training import setups
from tests.training.setups import BITS, CLASSES, LABELS


def _make(method: str = "clca", trained: bool = False, **options: Any) -> Network:
    vit = backbones.create("test_vit", setups.SIZE, seed=1)
    chosen = registry.get(method)
    given = chosen.options.parse({name: str(value) for name, value in options.items()})
    resolved = given.resolved(backbones.geometry(vit))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = chosen.build(vit, setups.NORM, resolved)
        encoder.begin()
        net = Network(encoder, ClassHashHead.fresh(encoder.width, CLASSES, BITS), resolved)
    if trained:
        with torch.no_grad():
            net.train()(setups.IMAGES)
    return net.eval()


def _embed(net: Network) -> npt.NDArray[np.float32]:
    return setups.embed(net.eval())


def _objective(**options: Any) -> ClassFirst:
    setup = setups.made(make=lambda pruned: _make(**options), embed=_embed).setup
    made = build(PAPER, setup)
    assert isinstance(made, ClassFirst)
    return made.train()


def test_the_loss_is_cross_entropy_and_a_hash_on_logits_without_a_way_back() -> None:
    made = _objective()
    batch = setups.batch()
    held = copy.deepcopy(made)  # batch norms move in training
    terms = made(batch)
    found = held.student.hashes(held.student(batch.images))
    assert list(terms) == ["class", "code"]
    wanted = setups.entropy(found["logits"], batch.labels)
    assert terms["class"].item() == pytest.approx(wanted, rel=1e-5)
    h, codes = setups.array(found["hash"]), setups.array(made.codes)  # type: ignore[arg-type]
    cosines = h @ codes.T / np.sqrt((h**2).sum(axis=1, keepdims=True) * BITS)
    wanted = setups.entropy(torch.from_numpy(8.0 * cosines), batch.labels)
    assert terms["code"].item() == pytest.approx(wanted, rel=1e-5)
    terms["code"].backward()
    reached = {name for name, p in made.student.named_parameters() if p.grad is not None}
    assert reached == {"head.head_hash.weight", "head.head_hash.bias"}
    assert list(made.networks()) == [STUDENT]


def test_what_is_published_takes_the_steps_that_it_would_take_alone() -> None:
    ends = []
    for names in (("class", "penalty"), ("class", "code", "penalty")):
        made = _objective(reduction="dynamicvit", keep_rate=0.6)
        optimizer = torch.optim.AdamW(made.parameter_groups(PAPER), lr=1e-3)
        for number in range(3):
            torch.manual_seed(number)
            terms = made(setups.batch())
            assert set(terms) == {"class", "code", "penalty"}
            optimizer.zero_grad()
            torch.stack([terms[name] for name in names]).sum().backward()
            optimizer.step()
        ends.append(made.student.state())
    alone, beside = ends
    changed = {name for name in alone if not torch.equal(alone[name], beside[name])}
    assert changed == {"head_hash.weight", "head_hash.bias"}


def test_codes_are_those_of_the_first_look_which_changes_nothing() -> None:
    made, fresh = _objective(), _make()
    with torch.no_grad():
        rows = _settled(fresh)
    np.testing.assert_array_equal(made.targets, class_codes(rows, LABELS, BITS, 5)[LABELS])
    aggregate = made.student.encoder.aggregate
    assert isinstance(aggregate, Aggregate)
    assert not aggregate.norm_in.num_batches_tracked  # type: ignore[truthy-bool]
    assert torch.equal(aggregate.norm_in.running_mean, torch.zeros(setups.WIDTH))  # type: ignore[arg-type]
    assert aggregate.conv.weight.std() > 0.1  # PyTorch's start, no ones and zeros
    assert len(aggregate.conv.weight.unique()) > setups.WIDTH
    assert made.student.head.head.weight.std() > 0.04  # type: ignore[union-attr, operator]


def _settled(net: Network) -> npt.NDArray[np.float32]:
    kept: list[torch.Tensor] = []
    aggregate = net.encoder.aggregate
    assert isinstance(aggregate, Aggregate)
    aggregate.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    net(setups.IMAGES)
    return aggregate.settle(kept[0]).numpy()


def test_an_aggregate_that_learnt_before_goes_on() -> None:
    before = _make(trained=True).encoder.state()
    after = _objective(trained=True).student.encoder.state()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_vectors_biases_and_single_tokens_do_not_decay() -> None:
    made = _objective(reduction="patchmerger", keep_rate=0.6)
    names = {id(value): name for name, value in made.student.state().items()}
    decaying, spared = (
        {names[id(value)] for value in group["params"]} for group in made.parameter_groups(PAPER)
    )
    every = {n for n, v in made.student.state().items() if isinstance(v, torch.nn.Parameter)}
    assert decaying | spared == every and not decaying & spared
    assert {"pos_embed", "cls_token", "clr", "patch_embed.proj.bias", "head.bias"} <= spared
    assert {"head.weight", "aggregate.conv.weight", "patch_embed.proj.weight"} <= decaying
    learned = {name for name in every if name.startswith("stages.") and "queries" in name}
    assert learned and learned <= decaying
    shapes = {name: value.ndim for name, value in made.student.state().items()}
    assert all(shapes[name] > 1 for name in decaying)
