"""What a method brings to training: its networks, and the rates of their parts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm.optim
import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import vit
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods.base import FAST, Recipe
from fgdeploy.models.methods.eet import PAPER
from fgdeploy.models.network import Network
from fgdeploy.training import objective as objectives
from fgdeploy.training.distillation import Distillation
from fgdeploy.training.fast import FastObjective
from fgdeploy.training.objective import STUDENT, TEACHER, Batch, Objective, Setup, build
from tests.checks import refused
from tests.models.samples import NORM, pruned
from tests.training import setups

SIZE, CLASSES, BITS, DEPTH = 64, 5, 16, 6


def _net(seed: int = 0) -> Network:
    encoder = pruned(vit.create("test_vit", SIZE, seed=seed), setups.STAGES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(encoder, ClassHashHead.fresh(64, CLASSES, BITS))


class _Networks(Objective):
    """An objective of given networks, one of which is not trained."""

    def __init__(self, **nets: Network) -> None:
        super().__init__()
        self.nets = torch.nn.ModuleDict(nets)
        self.frozen = _net(9).requires_grad_(False)

    @property
    def targets(self) -> npt.NDArray[np.int8]:
        return np.ones((1, 16), np.int8)

    def networks(self) -> dict[str, Network]:
        return {name: net for name, net in self.nets.items() if isinstance(net, Network)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {
            name: net(batch.images).embedding.square().mean() for name, net in self.nets.items()
        }


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
        if part.startswith("head."):
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
        assert (name in decaying) == (matrix and ".head." not in name), name


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
            ("head.head.weight", 0.05 * FAST.head_rate),
            ("head.head_hash.bias", 0.05 * FAST.head_rate),
        ):
            assert found[f"nets.{name}.{part}"]["lr"] == pytest.approx(rate)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}


class _Own(Encoder):
    """An encoder with a matrix, a bias, a token and a number of its own."""

    def __init__(self) -> None:
        suffix = torch.nn.Parameter(torch.zeros(1, 2, 64))
        super().__init__(vit.create("test_vit", SIZE), NORM, suffix=suffix)
        self.router = torch.nn.Linear(64, 3)
        self.register_buffer("steps_seen", torch.zeros(1))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_method_s_own_parameters_learn_as_fast_as_heads(recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, head_rate=3.0)
    objective = _Networks(student=Network(_Own(), ClassHashHead(64, CLASSES, BITS)))
    found = _by_name(objective, objective.parameter_groups(recipe))
    assert set(found) == {name for name, p in objective.named_parameters() if p.requires_grad}
    start = "nets.student.encoder."
    decays = {"router.weight": recipe.weight_decay, "router.bias": 0.0, "embed.suffix": 0.0}
    for name, decay in decays.items():
        assert found[start + name]["lr_scale"] == 3.0
        assert found[start + name]["weight_decay"] == decay
    assert found[f"{start}vit.norm.weight"]["lr_scale"] == 1.0


def test_a_method_s_own_parameters_are_stepped_at_their_rates() -> None:
    """With plain SGD a weight moves by its rate times its gradient."""
    net = Network(_Own(), ClassHashHead(64, CLASSES, BITS))
    objective = _Networks(student=net)
    recipe = _recipe(layer_decay=0.5, weight_decay=0.0, head_rate=3.0)
    optimizer = timm.optim.create_optimizer_v2(
        objective.parameter_groups(recipe), opt="momentum", lr=0.1, weight_decay=0.0, momentum=0.0
    )
    CosineLRScheduler(optimizer, t_initial=10, t_in_epochs=False).step_update(0)
    weights = {
        0.3: (net.encoder.router.weight, net.encoder.router.bias, net.encoder.embed.suffix),
        0.1: (net.encoder.vit.norm.weight,),
        0.1 * 0.5**3: (net.encoder.vit.blocks[2].mlp.fc1.weight,),
    }
    for parameter in objective.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {rate: [value.detach().clone() for value in held] for rate, held in weights.items()}
    optimizer.step()
    for rate, held in weights.items():
        for old, new in zip(before[rate], held, strict=True):
            assert (old - new).detach().numpy() == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize(
    "name", ["router.weight", "suffix", "blocks.3.attn.qkv.bias", "head_hash.weight"]
)
def test_a_weight_in_no_group_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    net = Network(_Own(), ClassHashHead(64, CLASSES, BITS))
    left_out = net.state()[name]

    def without(make: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
        def made(*arguments: Any) -> list[dict[str, Any]]:
            return [
                {**group, "params": [one for one in group["params"] if one is not left_out]}
                for group in make(*arguments)
            ]

        return made

    for part in ("_backbone_groups", "_own_groups"):
        monkeypatch.setattr(objectives, part, without(getattr(objectives, part)))
    plain = list(net.head.parameters())
    monkeypatch.setattr(
        net.head, "parameters", lambda: [one for one in plain if one is not left_out]
    )
    with pytest.raises(ValueError, match=f"^{name} is in no optimiser group, so it would not be"):
        _Networks(student=net).parameter_groups(FAST)
    left_out.requires_grad_(False)  # a frozen one may be left out
    assert _Networks(student=net).parameter_groups(FAST)


# Which objective


def test_a_recipe_names_its_objective_or_holds_it() -> None:
    given = setups.made().setup
    assert type(build(FAST, given)) is FastObjective
    assert type(build(PAPER, given)) is Distillation
    assert type(build(_recipe(objective=Distillation), given)) is Distillation


def test_a_view_without_another_name_is_the_image() -> None:
    views = {"image": torch.ones(2, 3, 4, 4), "other": torch.zeros(2, 3, 4, 4)}
    assert Batch(views, torch.zeros(2), torch.zeros(2)).images is views["image"]


@pytest.mark.parametrize("build", [Distillation, FastObjective])
def test_without_gradients_an_objective_has_none(build: Callable[[Setup], Objective]) -> None:
    objective = build(setups.made().setup)
    with torch.no_grad():
        terms = objective(setups.batch())
    assert all(not term.requires_grad for term in terms.values())
    assert all(
        term.requires_grad and term.shape == () for term in objective(setups.batch()).values()
    )


def _stepped(frozen: int) -> tuple[FastObjective, dict[str, Tensor], dict[str, Tensor]]:
    """Return an objective after two steps of AdamW, its first gradients, and how it began."""
    recipe = _recipe(frozen=frozen, head_rate=1.0)
    made = build(recipe, setups.made().setup)
    assert isinstance(made, FastObjective)
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    optimizer = torch.optim.AdamW(made.parameter_groups(recipe), lr=1e-3)
    first: dict[str, Tensor] = {}
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack(list(made(setups.batch(*range(8))).values())).sum().backward()
        first = first or {
            name: value.grad.clone()
            for name, value in made.named_parameters()
            if value.grad is not None
        }
        optimizer.step()
    return made, first, before


def test_frozen_blocks_stay_and_the_rest_learns_as_before() -> None:
    made, first, before = _stepped(frozen=3)
    _, whole, _ = _stepped(frozen=0)
    below = ("blocks.0.", "blocks.1.", "blocks.2.", "patch_embed.", "cls_token", "pos_embed")
    stay = {name for name in before if name.removeprefix("student.encoder.vit.").startswith(below)}
    assert set(whole) == set(before)
    assert set(first) == set(before) - stay
    assert all(torch.equal(first[name], whole[name]) for name in first)
    changed = {name for name, value in made.named_parameters() if value.ne(before[name]).any()}
    assert changed == set(before) - stay
    assert set(made.student.state()) == set(_net().state())  # saved whole


def test_the_last_norm_and_the_head_learn_above_frozen_blocks() -> None:
    net = _net()
    objectives.freeze(net, DEPTH)
    assert {name for name, value in net.state().items() if value.requires_grad} == {
        f"{name}.{kind}" for name in ("norm", "head", "head_hash") for kind in ("weight", "bias")
    }


def test_more_frozen_blocks_than_there_are_is_an_error() -> None:
    with refused(UsageError, "7 frozen blocks: the backbone has 6; freeze fewer"):
        objectives.freeze(_net(), 7)
