"""What a method brings to training: its networks and the terms of its loss.

The loop knows an `Objective` and a `Recipe` and no method by name. A method that joins writes a
subclass here: `forward` gives its loss terms for a batch, `networks` what is trained, evaluated
and saved (the student first), and `parameter_groups` may give single tensors rates of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import timm.optim
from torch import Tensor, nn

from fgdeploy.training.data import Augment, crop_and_flip
from fgdeploy.training.network import HashNet

STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class Batch:
    """Images in training: normalised [B, 3, S, S], class numbers [B], rows in the set [B]."""

    images: Tensor
    labels: Tensor
    rows: Tensor


class Objective(nn.Module, ABC):
    """The networks of one training and their loss."""

    @property
    @abstractmethod
    def targets(self) -> npt.NDArray[np.int8]:
        """Return the code of -1 and +1 that each training image is drawn to, (n, bits).

        It is read from the state dict, so that a resumed run keeps the codes it began with.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss by name; their sum is what is minimised."""

    @abstractmethod
    def networks(self) -> dict[str, HashNet]:
        """Return the networks that are trained, by name; `student` is the one to deploy."""

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return optimiser groups: lower rates for lower blocks, no decay on norms and biases."""
        groups: list[dict[str, Any]] = []
        for net in self.networks().values():
            groups += _backbone_groups(net.encoder.vit, recipe)
            groups.append(
                {
                    "params": list(net.heads.parameters()),
                    "weight_decay": 0.0,
                    "lr_scale": recipe.head_rate,
                }
            )
        return groups


def _backbone_groups(vit: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    if recipe.layer_decay is None and recipe.weight_decay == 0:
        return [{"params": list(vit.parameters()), "weight_decay": 0.0, "lr_scale": 1.0}]
    groups: list[dict[str, Any]] = timm.optim.param_groups_layer_decay(
        vit,
        weight_decay=recipe.weight_decay,
        no_weight_decay_list=vit.no_weight_decay(),  # type: ignore[operator]
        layer_decay=recipe.layer_decay or 1.0,
    )
    return groups


@dataclass(frozen=True)
class Setup:
    """What an objective is built from.

    make: returns a network with the pretrained backbone, pruned (True) or dense. embed: runs a
    network over the training images, unaugmented, and returns embeddings (n, D). labels: (n,).
    without: parts of the method to leave out, by the paper's short names. teacher: a frozen
    network to learn from, with the targets that it was trained to where these are known.
    """

    make: Callable[[bool], HashNet]
    embed: Callable[[HashNet], npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]
    classes: int
    bits: int
    patch: int
    seed: int
    without: frozenset[str] = frozenset()
    transposed_mask: bool = False
    teacher: HashNet | None = None
    teacher_targets: npt.NDArray[np.int8] | None = None


@dataclass(frozen=True)
class Recipe:
    """How a method is trained: its objective and the settings that go with it.

    optimizer: timm's name. lr is per step of `batch` images; warmup in steps. layer_decay: rate of
    a block over that of the next. head_rate: rate of the heads over lr. least_area: least part of
    a photo's area in a training view; augment makes the view from (image side, least area).
    parts: what `without` may name.
    """

    build: Callable[[Setup], Objective]
    epochs: int
    batch: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    layer_decay: float | None
    head_rate: float
    warmup: int
    least_area: float
    augment: Callable[[int, float], Augment] = crop_and_flip
    clip_norm: float | None = None
    parts: Sequence[str] = ()
