"""A network in training, the rates of its parts, and the recipes by name."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm.optim
import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor

from fgdeploy.core.errors import UsageError
from fgdeploy.models import vit
from fgdeploy.models.eet import eet
from fgdeploy.models.stages import Stage
from fgdeploy.training import recipes
from fgdeploy.training.eet import PAPER
from fgdeploy.training.fast import FAST
from fgdeploy.training.network import HashNet
from fgdeploy.training.objective import STUDENT, TEACHER, Batch, Objective, Recipe
from tests.checks import refused

SIZE, CLASSES, BITS, DEPTH = 64, 5, 16, 6
STAGES = (Stage(2, 8), Stage(4, 4))


def _net(seed: int = 0, backbone: str = "test_vit", classes_of_backbone: int = 0) -> HashNet:
    encoder = eet(vit.create(backbone, SIZE, classes_of_backbone, seed), STAGES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HashNet(encoder, STAGES, CLASSES, BITS)


def _images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


# The network


@pytest.mark.parametrize("classes_of_backbone", [0, 7])
@pytest.mark.parametrize("backbone", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_tensors_have_the_names_of_timm_and_of_the_heads(
    backbone: str, classes_of_backbone: int
) -> None:
    net = _net(backbone=backbone, classes_of_backbone=classes_of_backbone)
    expected = set(vit.create(backbone, SIZE).state_dict())
    assert "blocks.5.attn.qkv.weight" in expected and "head.weight" not in expected
    expected |= {"head.weight", "head.bias", "head_hash.weight", "head_hash.bias"}
    tensors = net.tensors()
    assert set(tensors) == expected
    # The heads are the trained ones, not a class head that the backbone came with.
    assert tensors["head.weight"].shape == (CLASSES, int(net.encoder.vit.embed_dim))
    assert tensors["head.bias"].shape == (CLASSES,)
    assert tensors["head_hash.weight"].shape == (BITS, CLASSES)
    assert tensors["head_hash.bias"].shape == (BITS,)
    # Saved as they are: each weight once, and in no other's memory.
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)
    if classes_of_backbone == 0:
        assert sum(value.numel() for value in tensors.values()) == sum(
            parameter.numel() for parameter in net.parameters()
        )


def test_tensors_follow_the_weights() -> None:
    net = _net()
    with torch.no_grad():
        net.heads.head_hash.bias.fill_(3.0)
        net.encoder.vit.cls_token.fill_(2.0)
    tensors = net.tensors()
    assert (tensors["head_hash.bias"] == 3).all()
    assert (tensors["cls_token"] == 2).all()


def test_heads_start_small_and_without_bias() -> None:
    """As the authors start them: truncated normal of deviation 0.02, bias 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = HashNet(eet(vit.create("test_vit", SIZE), ()), (), 200, 64)
    for linear in (net.heads.head, net.heads.head_hash):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(linear.weight.mean().item()) < 1e-3
        assert (linear.bias == 0).all()


def test_the_hash_is_taken_of_the_logits_of_the_embedding() -> None:
    net, images = _net(), _images()
    with torch.no_grad():
        for linear in (net.heads.head, net.heads.head_hash):
            linear.bias.normal_(generator=torch.Generator().manual_seed(4))
        hashes, logits = net(images)
        embedding = net.encoder(images).double().numpy()
    w = {name: value.detach().double().numpy() for name, value in net.heads.state_dict().items()}
    expected = embedding @ w["head.weight"].T + w["head.bias"]
    assert logits.numpy() == pytest.approx(expected, abs=1e-5)
    expected = expected @ w["head_hash.weight"].T + w["head_hash.bias"]
    assert hashes.numpy() == pytest.approx(expected, abs=1e-5)
    assert hashes.shape == (2, BITS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hashes_are_float32_under_autocast(dtype: torch.dtype) -> None:
    net, images = _net(), _images()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        assert net.heads(torch.ones(1, 64))[0].dtype == dtype  # or the test would prove nothing
        hashes, logits = net(images)
        embedding = net.encoder(images)
        halves, _ = net.hash(embedding.to(dtype))
    assert hashes.dtype == logits.dtype == halves.dtype == torch.float32
    with torch.no_grad():
        expected, expected_logits = net.heads(embedding.float())
    assert torch.equal(hashes, expected)
    assert torch.equal(logits, expected_logits)


# The rates of its parts


class _Networks(Objective):
    """An objective of given networks, one of which is not trained."""

    def __init__(self, **nets: HashNet) -> None:
        super().__init__()
        self.nets = torch.nn.ModuleDict(nets)
        self.frozen = _net(9).requires_grad_(False)

    @property
    def targets(self) -> npt.NDArray[np.int8]:
        return np.ones((1, 16), np.int8)

    def networks(self) -> dict[str, HashNet]:
        return {name: net for name, net in self.nets.items() if isinstance(net, HashNet)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {name: net(batch.images)[0].square().mean() for name, net in self.nets.items()}


def _by_name(objective: Objective, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the group of each parameter by its name; each must have one."""
    names = {id(value): name for name, value in objective.named_parameters()}
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = group
    return found


def _recipe(**changes: Any) -> Recipe:
    return dataclasses.replace(FAST, **changes)


RECIPES = {
    "paper": PAPER,
    "fast": FAST,
    "decay alone": _recipe(layer_decay=None),
    "layers alone": _recipe(weight_decay=0.0),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_trained_parameter_is_in_one_group(recipe: Recipe) -> None:
    objective = _Networks(student=_net(0), teacher=_net(1))
    groups = objective.parameter_groups(recipe)
    counts = Counter(id(parameter) for group in groups for parameter in group["params"])
    assert set(counts.values()) == {1}
    trained = {id(p) for net in objective.networks().values() for p in net.parameters()}
    assert set(counts) == trained
    assert set(counts) == {id(p) for p in objective.parameters() if p.requires_grad}


def test_lower_blocks_learn_more_slowly() -> None:
    objective = _Networks(student=_net())
    recipe = _recipe(layer_decay=0.5, head_rate=3.0)
    found = _by_name(objective, objective.parameter_groups(recipe))
    for name, group in found.items():
        part = name.removeprefix("nets.student.").removeprefix("encoder.vit.")
        if part.startswith("heads."):
            expected = 3.0
        elif part.startswith("blocks."):
            expected = 0.5 ** (DEPTH - 1 - int(part.split(".")[1]))  # 1 for the last block
        elif part.startswith("norm."):
            expected = 1.0  # the norm after the blocks goes with the last one
        else:
            assert part.split(".")[0] in ("cls_token", "pos_embed", "patch_embed")
            expected = 0.5**DEPTH
        assert group["lr_scale"] == pytest.approx(expected), part
    scales = [
        found[f"nets.student.encoder.vit.blocks.{i}.mlp.fc1.weight"]["lr_scale"]
        for i in range(DEPTH)
    ]
    assert scales == sorted(set(scales))  # rising from bottom to top, all different


@pytest.mark.parametrize("layer_decay", [None, 0.75])
def test_norms_biases_tokens_and_heads_do_not_decay(layer_decay: float | None) -> None:
    objective = _Networks(student=_net())
    recipe = _recipe(layer_decay=layer_decay, weight_decay=0.05)
    found = _by_name(objective, objective.parameter_groups(recipe))
    shapes = {name: parameter.ndim for name, parameter in objective.named_parameters()}
    decaying = {name for name, group in found.items() if group["weight_decay"] > 0}
    assert {found[name]["weight_decay"] for name in decaying} == {0.05}
    spared = {name.split(".")[-1] for name in found if shapes[name] > 1} - {"weight"}
    assert spared == {"cls_token", "pos_embed"}
    for name in found:
        matrix = shapes[name] > 1 and name.endswith(".weight")
        assert (name in decaying) == (matrix and ".heads." not in name), name


def test_without_layer_decay_all_blocks_learn_alike() -> None:
    objective = _Networks(student=_net())
    for recipe in (PAPER, _recipe(layer_decay=None, head_rate=1.0)):
        groups = objective.parameter_groups(recipe)
        assert {group["lr_scale"] for group in groups} == {1.0}
    assert {group["weight_decay"] for group in objective.parameter_groups(PAPER)} == {0.0}


def test_the_optimiser_takes_the_rates_as_the_loop_makes_it() -> None:
    objective = _Networks(student=_net(), teacher=_net(1))
    optimizer = timm.optim.create_optimizer_v2(
        objective.parameter_groups(FAST),
        opt=FAST.optimizer,
        lr=0.1,
        weight_decay=FAST.weight_decay,
        momentum=FAST.momentum,
    )
    schedule = CosineLRScheduler(
        optimizer, t_initial=10, warmup_t=4, warmup_prefix=True, t_in_epochs=False
    )
    schedule.step_update(2)  # half of the warm-up
    found = _by_name(objective, optimizer.param_groups)
    decay = FAST.layer_decay
    assert decay is not None
    for name in (STUDENT, TEACHER):
        for part, rate in (
            ("encoder.vit.blocks.5.mlp.fc1.weight", 0.05),
            ("encoder.vit.blocks.2.attn.qkv.bias", 0.05 * decay**3),
            ("encoder.vit.patch_embed.proj.weight", 0.05 * decay**6),
            ("heads.head.weight", 0.05 * FAST.head_rate),
            ("heads.head_hash.bias", 0.05 * FAST.head_rate),
        ):
            assert found[f"nets.{name}.{part}"]["lr"] == pytest.approx(rate)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}


# The recipes


def test_recipes_by_name() -> None:
    assert recipes.get("eet", "paper") is PAPER
    assert recipes.get("eet", "fast") is FAST
    assert next(iter(recipes.RECIPES["eet"])) == "fast"  # the default


def test_a_recipe_that_there_is_not() -> None:
    with refused(UsageError, "^eet has no recipe 'slow'; choose fast, paper"):
        recipes.get("eet", "slow")
    with refused(UsageError, "^dino cannot be trained yet; choose eet"):
        recipes.get("dino", "fast")


def test_the_paper_s_settings() -> None:
    """docs/methods.md 1.3."""
    assert (PAPER.lr, PAPER.momentum, PAPER.weight_decay) == (1e-2, 0.9, 0.0)
    assert (PAPER.epochs, PAPER.batch, PAPER.warmup) == (90, 64, 500)  # CUB and Cars
    assert PAPER.layer_decay is None and PAPER.clip_norm is None and PAPER.head_rate == 1.0
    optimizer = timm.optim.create_optimizer_v2(
        [torch.nn.Parameter(torch.zeros(1))], opt=PAPER.optimizer, lr=1e-2, momentum=0.9
    )
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["nesterov"] is False
