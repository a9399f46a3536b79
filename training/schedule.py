"""How a recipe's rate changes over a training, and a recipe fitted to what a user asks for."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from timm.scheduler import CosineLRScheduler
from torch.optim import Optimizer

from fgdeploy.core.errors import UsageError
from fgdeploy.core.progress import Notify
from fgdeploy.core.text import counted
from fgdeploy.models.methods.base import Recipe
from fgdeploy.training import data
from fgdeploy.training.train_settings import TrainSettings


def make(optimizer: Optimizer, recipe: Recipe, steps: int) -> CosineLRScheduler:
    """Return the scheduler of an optimiser: per step, or per epoch where the recipe says so.

    steps: of an epoch. Both kinds are told of each step and each epoch, and heed one of them.
    """
    by_epoch = recipe.by_epoch
    if by_epoch is None:
        return CosineLRScheduler(
            optimizer,
            t_initial=max(1, steps * recipe.epochs - recipe.warmup) + 1,
            lr_min=min(recipe.last_lr, recipe.lr),
            warmup_t=recipe.warmup,
            warmup_lr_init=min(recipe.first_lr, recipe.lr),
            warmup_prefix=True,
            t_in_epochs=False,
        )
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, recipe.epochs - by_epoch.cooldown),
        lr_min=recipe.lr * by_epoch.least,
        warmup_t=by_epoch.warmup,
        warmup_lr_init=recipe.lr * by_epoch.start,
    )


def fitted(
    recipe: Recipe, settings: TrainSettings, labels: npt.NDArray[np.int64], notify: Notify
) -> Recipe:
    """Return the recipe with the user's numbers, and a warm-up that fits. Raises UsageError."""
    chosen = {
        name: value
        for name in ("epochs", "batch", "lr", "warmup", "least_area")
        if (value := getattr(settings, name)) is not None
    }
    sized = dataclasses.replace(recipe, **chosen)
    if recipe.by_epoch is not None:
        if "warmup" in chosen:
            raise UsageError(
                f"--warmup {settings.warmup}: it counts steps, and recipe {settings.recipe} of "
                f"{settings.method} warms up by epochs; leave it out, --epochs scales it"
            )
        scaled = recipe.by_epoch.scaled(sized.epochs / recipe.epochs)
        return dataclasses.replace(sized, by_epoch=scaled)
    return sized if recipe.sized else warmed(sized, settings, labels, notify)


def warmed(
    recipe: Recipe, settings: TrainSettings, labels: npt.NDArray[np.int64], notify: Notify
) -> Recipe:
    """Return the recipe with a warm-up that fits its steps, unless the user gave one."""
    if recipe.by_epoch is not None or settings.warmup is not None:
        return recipe
    plan = data.plan(labels, recipe.batch, recipe.per_class, 0, settings.seed)
    steps = len(plan) * recipe.epochs * recipe.passes
    if recipe.warmup <= steps // 4:
        return recipe
    shorter = max(1, steps // 6)
    notify(
        f"warm-up shortened from {recipe.warmup} to {shorter} of {counted(steps, 'step')}; "
        "--warmup sets it"
    )
    return dataclasses.replace(recipe, warmup=shorter)


def said(recipe: Recipe, steps: int) -> str:
    """Return how long a training is, in words. steps: of an epoch."""
    passes = f" (each {recipe.passes} passes over the photos)" if recipe.passes > 1 else ""
    return (
        f"{counted(recipe.epochs, 'epoch')}{passes} of {counted(steps, 'step')} of "
        f"{counted(recipe.batch, 'photo')}, rate {recipe.lr:.2g}"
    )
