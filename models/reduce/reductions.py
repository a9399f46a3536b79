"""The token reductions by name."""

from __future__ import annotations

from fgdeploy.models.reduce import evit, tome, topk
from fgdeploy.models.reduce.reduction import Reduction

# Each becomes a method by itself, and one that CLCA builds on.
REDUCTIONS: dict[str, Reduction] = {
    one.name: one for one in (evit.REDUCTION, topk.REDUCTION, tome.REDUCTION)
}
