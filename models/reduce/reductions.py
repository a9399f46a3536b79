"""The token reductions by name."""

from __future__ import annotations

from fgdeploy.models.reduce import (
    ats,
    cropr,
    dpcknn,
    dynamicvit,
    evit,
    mame,
    patchmerger,
    sit,
    tome,
    topk,
)
from fgdeploy.models.reduce.reduction import Reduction

_ALL = (
    evit.REDUCTION,
    topk.REDUCTION,
    tome.REDUCTION,
    ats.REDUCTION,
    dpcknn.REDUCTION,
    dynamicvit.REDUCTION,
    sit.REDUCTION,
    patchmerger.REDUCTION,
    mame.REDUCTION,
    cropr.REDUCTION,
)

# Each becomes a method by itself, and one that CLCA builds on.
REDUCTIONS: dict[str, Reduction] = {one.name: one for one in _ALL}
