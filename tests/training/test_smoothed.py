"""GLSim's training of classes: smoothed labels, stochastic depth, its start and its rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import nn

from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods import glsim
from fgdeploy.models.network import Network
from fgdeploy.training import data, schedule
from fgdeploy.training.objective import build
from fgdeploy.training.smoothed import SmoothedDeep
from tests.training import setups
from tests.training.setups import BITS, CLASSES

PAPER = glsim.PAPER


def _objective(learnt: bool = False) -> SmoothedDeep:
    def make(pruned: bool) -> Network:
        vit = backbones.create("test_vit", setups.SIZE, seed=1)
        options = glsim.GLSimOptions().resolved(backbones.geometry(vit))
        encoder = glsim.build(vit, setups.NORM, options)
        if not learnt:
            encoder.begin()
        return Network(encoder, ClassHashHead.fresh(encoder.width, CLASSES, BITS), options)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build(PAPER, setups.made(make=make, embed=setups.embed).setup)
    assert isinstance(made, SmoothedDeep)
    return made.train()


def test_labels_are_smoothed_by_a_tenth() -> None:
    made, batch = _objective().eval(), setups.batch()
    nn.init.normal_(made.student.head.head.weight)  # type: ignore[union-attr, arg-type]
    logits = setups.array(made.student.hashes(made.student(batch.images))["logits"])
    chances = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = np.full(logits.shape, 0.1 / CLASSES)
    wanted[np.arange(len(logits)), batch.labels.numpy()] += 0.9
    expected = -(wanted * chances).sum(axis=1).mean()
    assert made(batch)["class"].item() == pytest.approx(expected, rel=1e-5)


def test_every_block_is_left_out_at_one_rate() -> None:
    blocks = [part for part in _objective().student.modules() if isinstance(part, Block)]
    assert len(blocks) == 7  # six, and the aggregator's
    for block in blocks:
        for path in (block.drop_path1, block.drop_path2):
            assert isinstance(path, DropPath) and path.drop_prob == 0.1


def test_it_starts_as_published_and_goes_on_where_it_has_learnt() -> None:
    fresh, learnt = _objective(), _objective(learnt=True)
    for made in (fresh, learnt):
        head = made.student.head
        assert isinstance(head, ClassHashHead)
        assert not head.head.weight.any() and not head.head.bias.any()
    block = fresh.student.encoder.aggregator.blocks[0]  # type: ignore[union-attr, index]
    limit = math.sqrt(6 / (64 + 64))
    assert 0.95 * limit < block.attn.proj.weight.abs().max() <= limit
    before = learnt.student.encoder.aggregator.blocks[0]  # type: ignore[union-attr, index]
    assert before.attn.proj.weight.abs().max() <= 1 / 8  # PyTorch's own start, kept


def test_the_hash_head_shortens_no_published_step() -> None:
    made = _objective()
    published, beside = made.clipped()
    assert {id(one) for one in beside} == {
        id(one)
        for one in made.student.head.head_hash.parameters()  # type: ignore[union-attr]
    }
    assert len(published) + len(beside) == len(list(made.parameters()))
    terms = made(setups.batch())
    torch.stack(list(terms.values())).sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in made.parameters())


def test_rates_are_the_authors() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight], "lr_scale": 1.0}], lr=PAPER.lr)
    made = schedule.make(optimizer, PAPER, steps=100)
    found = []
    for step in range(5000):
        made.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    assert found[0] == pytest.approx(1e-6) and found[250] == pytest.approx((1e-2 + 1e-6) / 2)
    assert max(found) == found[500] == pytest.approx(1e-2)
    middle = 500 + 4501 // 2
    assert found[middle] == pytest.approx((1e-2 + 1e-5) / 2, rel=1e-3)
    assert 1e-5 <= found[-1] < 1.1e-5
    numbers = (PAPER.optimizer, PAPER.momentum, PAPER.weight_decay, PAPER.batch, PAPER.epochs)
    assert numbers == ("sgd", 0.9, 0.0, 8, 50)
    assert PAPER.clip_norm == 1.0 and PAPER.warmup == 500


def test_views_are_changed_at_random_and_erased_with_the_mean_colour() -> None:
    assert int(224 / PAPER.least_area**0.5) == 300
    make = data.square_crop_and_trivial(32, PAPER.least_area)
    image = Image.fromarray(np.full((60, 90, 3), 250, np.uint8))
    erased = 0
    for seed in range(200):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            view = make(image)
        assert isinstance(view, torch.Tensor)
        assert view.shape == (3, 32, 32) and view.dtype == torch.uint8
        erased += bool((view == torch.tensor([124, 116, 104]).view(3, 1, 1)).all(dim=0).any())
    assert 35 <= erased <= 85
