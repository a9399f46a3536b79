"""How long and how fast a training runs where the user leaves it open: by the set and a first look.

A set that the pretrained network tells apart already is learnt in few steps; one of another kind
needs three times as many. What each number is worth: benchmarks/README.md.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from fgdeploy.core.text import counted
from fgdeploy.models.methods.base import Recipe
from fgdeploy.training.train_settings import TrainSettings

# Told apart so well, a set is easy; so badly, it is of another kind than what was pretrained on.
EASY, HARD = 0.8, 0.1
STEPS, PHOTOS = (160, 480), 32  # least steps of an easy and of a hard set, of so many photos
PASSES = (6, 12)  # least passes over the photos
LOG_ROWS = 12  # at most, each with an evaluation and a state on disk
WIDTH = 192  # whose rate the recipe names; wider networks take smaller steps (Yang et al. 2022)


@dataclass(frozen=True)
class SetFacts:
    """What a first look says of the training photos.

    told: share, 0..1, that a linear classifier tells when each is left out (`linear_probe`), None
    where no class has two photos.
    """

    photos: int
    classes: int
    told: float | None

    @property
    def hardness(self) -> float:
        """Return 0 for a set that is told apart already to 1 for one that is not at all."""
        told = (EASY + HARD) / 2 if self.told is None else self.told
        return min(1.0, max(0.0, (EASY - told) / (EASY - HARD)))

    def said(self) -> str:
        """Return what the first look found, in words."""
        if self.told is None:
            return "first look: no class has two photos, so nothing is known of how they differ"
        return (
            f"first look: a linear classifier on the starting weights tells {self.told:.0%} of the "
            f"photos by {counted(self.classes, 'class')}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON-ready values."""
        return {**dataclasses.asdict(self), "hardness": self.hardness}


def sized(recipe: Recipe, facts: SetFacts, settings: TrainSettings, width: int) -> Recipe:
    """Return the recipe with the numbers that fit the set; those that the user gave stay.

    width: D of the backbone.
    """
    if not recipe.sized:
        return recipe
    changes: dict[str, Any] = {}
    if settings.lr is None:
        changes["lr"] = recipe.lr * min(1.0, WIDTH / width)
    per_pass = math.ceil(facts.photos / recipe.batch)
    passes = recipe.epochs
    if settings.epochs is None:
        steps = _between(STEPS, facts.hardness) * min(1.0, PHOTOS / recipe.batch)
        least = math.ceil(steps / per_pass)
        passes = max(round(_between(PASSES, facts.hardness)), least)
        changes["passes"] = math.ceil(passes / LOG_ROWS)
        changes["epochs"] = math.ceil(passes / changes["passes"])
    if settings.warmup is None:
        changes["warmup"] = min(recipe.warmup, max(1, per_pass * passes // 8))
    return dataclasses.replace(recipe, **changes)


def _between(ends: tuple[int, int], part: float) -> float:
    return ends[0] + part * (ends[1] - ends[0])
