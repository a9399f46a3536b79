"""The recipes by method and name; the first of each method is its default."""

from __future__ import annotations

from fgdeploy.core.errors import UsageError
from fgdeploy.training.eet import PAPER
from fgdeploy.training.fast import FAST
from fgdeploy.training.objective import Recipe

RECIPES: dict[str, dict[str, Recipe]] = {
    "eet": {"fast": FAST, "paper": PAPER},
}


def get(method: str, name: str) -> Recipe:
    """Return a recipe of a method. Raises UsageError."""
    if method not in RECIPES:
        raise UsageError(f"{method} cannot be trained yet; choose {', '.join(RECIPES)}")
    if name not in RECIPES[method]:
        known = ", ".join(RECIPES[method])
        raise UsageError(f"{method} has no recipe {name!r}; choose {known}")
    return RECIPES[method][name]
