"""What a method brings to training: its networks and the terms of its loss.

The loop knows an `Objective` and a `Recipe` and no method by name. A method that joins writes a
subclass here: `forward` gives its loss terms for a batch, `networks` what is trained, evaluated
and saved (the student first), and `parameter_groups` may give single tensors rates of their own.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import timm.optim
from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.methods.base import Recipe
from fgdeploy.models.network import Network
from fgdeploy.models.options import Options
from fgdeploy.photos.boxes import Box
from fgdeploy.training.data import IMAGE
from fgdeploy.training.sizing import SetFacts

STUDENT, TEACHER = "student", "teacher"
_STEM = ("patch_embed", "pos_embed", "cls_token", "reg_token", "norm_pre")  # timm's names


@dataclass(frozen=True)
class Batch:
    """Photos in training: normalised views [B, 3, S, S] by name, class numbers [B], rows [B].

    Most recipes have one view, `image`; one that looks at a photo in several ways names them.
    """

    views: Mapping[str, Tensor]
    labels: Tensor
    rows: Tensor

    @property
    def images(self) -> Tensor:
        """Return the view `image`."""
        return self.views[IMAGE]


class Objective(nn.Module, ABC):
    """The networks of one training and their loss.

    reached: share, 0..1, of the bits of the last batch that reach their target codes, None for an
    objective that does not say.
    """

    reached: Tensor | None = None

    @property
    def facts(self) -> SetFacts | None:
        """Return what a first look says of the set, None where the objective takes none."""
        return None

    @property
    def targets(self) -> npt.NDArray[np.int8] | None:
        """Return the code of -1 and +1 that each training image is drawn to, (n, bits).

        None for an objective without target codes. They are read from the state dict, so that a
        resumed run keeps the codes it began with.
        """
        return None

    @property
    def compares_photos(self) -> bool:
        """Return whether a network that is trained normalises over its batch."""
        nets = self.networks().values()
        return any(isinstance(part, nn.BatchNorm1d) for net in nets for part in net.modules())

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss by name; their sum is what is minimised."""

    @abstractmethod
    def networks(self) -> dict[str, Network]:
        """Return the networks that are trained, by name; `student` is the one to deploy."""

    def clipped(self) -> list[list[nn.Parameter]]:
        """Return lists of parameters, each clipped by the norm of its own gradients."""
        return [list(self.parameters())]

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return optimiser groups: lower rates for lower blocks, no decay on norms and biases."""
        groups: list[dict[str, Any]] = []
        for net in self.networks().values():
            groups += _backbone_groups(net, recipe)
            groups += _own_groups(net, recipe)
            groups.append(
                {
                    "params": list(net.head.parameters()),
                    "weight_decay": 0.0,
                    "lr_scale": recipe.head_rate,
                }
            )
            _check_complete(net, groups)
        return groups


def _backbone_groups(net: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """Return groups of what is the backbone's own and not frozen."""
    vit, own = net.encoder.vit, net.encoder.own()
    if recipe.layer_decay is None and recipe.weight_decay == 0:
        groups: list[dict[str, Any]] = [
            {"params": list(vit.parameters()), "weight_decay": 0.0, "lr_scale": 1.0}
        ]
    else:
        groups = timm.optim.param_groups_layer_decay(
            vit,
            weight_decay=recipe.weight_decay,
            no_weight_decay_list=vit.no_weight_decay(),
            layer_decay=recipe.layer_decay or 1.0,
        )
    others = {id(value) for name, value in net.encoder.state().items() if name in own}
    for group in groups:
        group["params"] = [
            one for one in group["params"] if one.requires_grad and id(one) not in others
        ]
    return [group for group in groups if group["params"]]


def _own_groups(net: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """Return groups of a method's own parameters: tokens, predictors and the like."""
    own = net.encoder.own()
    tensors = [
        value
        for name, value in net.encoder.state().items()
        if name in own and isinstance(value, nn.Parameter) and value.requires_grad
    ]
    matrices = [value for value in tensors if value.ndim == 2]
    others = [value for value in tensors if value.ndim != 2]
    return [
        {"params": part, "weight_decay": decay, "lr_scale": recipe.head_rate}
        for part, decay in ((matrices, recipe.weight_decay), (others, 0.0))
        if part
    ]


def _check_complete(net: Network, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse groups that leave a weight of the network's state untrained."""
    held = {id(tensor) for group in groups for tensor in group["params"]}
    for name, value in net.state().items():
        if isinstance(value, nn.Parameter) and value.requires_grad and id(value) not in held:
            raise ValueError(f"{name} is in no optimiser group, so it would not be trained")


@dataclass(frozen=True)
class Setup:
    """What an objective is built from.

    make: returns a network with the pretrained backbone, with the method's token reduction (True)
    or without. embed: runs a network over the training images, unaugmented, and returns embeddings
    (n, D). labels: (n,). patch: its side in pixels. options: the method's. without: parts of the
    method to leave out, by the paper's short names. teacher: a frozen network to learn from, with
    the targets that it was trained to where these are known. boxes: where the object lies in each
    training image, None for one without, for recipes that ask for boxes.
    """

    make: Callable[[bool], Network]
    embed: Callable[[Network], npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]
    classes: int
    bits: int
    patch: int
    seed: int
    options: Options
    without: frozenset[str] = frozenset()
    teacher: Network | None = None
    teacher_targets: npt.NDArray[np.int8] | None = None
    boxes: Sequence[Box | None] = ()


def build(recipe: Recipe, setup: Setup) -> Objective:
    """Return the objective that a recipe names, for this setup. Raises UsageError."""
    made: Objective = found(recipe.objective)(setup)
    for net in made.networks().values():
        freeze(net, recipe.frozen)
    return made


def freeze(net: Network, count: int) -> None:
    """Leave the backbone's embedding and its first `count` blocks as they are; 0 freezes nothing.

    What they compute has no graph then: the backward pass ends above them. A method's own
    parameters go on learning. Raises UsageError for more blocks than there are.
    """
    depth = len(net.encoder.vit.blocks)
    if count > depth:
        raise UsageError(f"{count} frozen blocks: the backbone has {depth}; freeze fewer")
    stem = _STEM if count else ()
    below = (*stem, *(f"blocks.{index}" for index in range(count)))
    for name, value in net.encoder.vit.named_parameters():
        if any(name == part or name.startswith(f"{part}.") for part in below):
            value.requires_grad_(False)


def found(what: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return what a recipe names as `module:name`, or what it holds itself."""
    if not isinstance(what, str):
        return what
    module, _, name = what.partition(":")
    named: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return named
