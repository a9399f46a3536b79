"""The methods by name: what a method brings so that everything after it can stay the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fgdeploy.core.errors import UsageError
from fgdeploy.models import eet
from fgdeploy.models.staged import Shortcuts, StagedViT
from fgdeploy.models.stages import Schedule, Stage
from fgdeploy.models.vit import ViT


@dataclass(frozen=True)
class Method:
    """A published method.

    encoder: makes the network from a backbone, stages and shortcuts. resize_ratio and
    interpolation: the photo's short side over the model's input, and the filter, as the method's
    authors evaluate.
    """

    name: str
    backbone: str
    schedule: Schedule
    resize_ratio: float
    interpolation: str
    encoder: Callable[[ViT, tuple[Stage, ...], Shortcuts], StagedViT]


METHODS: dict[str, Method] = {
    "eet": Method(
        name="eet",
        backbone=eet.BACKBONE,
        schedule=eet.SCHEDULE,
        resize_ratio=256 / 224,
        interpolation="bilinear",
        encoder=eet.eet,
    ),
}


def get(name: str) -> Method:
    """Return a method by name. Raises UsageError."""
    if name not in METHODS:
        raise UsageError(f"no method {name!r} yet; choose {', '.join(METHODS)}")
    return METHODS[name]
