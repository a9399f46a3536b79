"""From which batch and image size pruning pays on this device, by the staircase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgdeploy.models.reduce.stages import Stage
from fgdeploy.tuning.schedules import estimate
from fgdeploy.tuning.staircase import Stair

BATCHES = (1, 8, 32)
SIZES = (224, 384, 448)
# Less than this is within what timings repeat to.
_PAYS = 1.05


@dataclass(frozen=True)
class Setting:
    """What pruning gains at a batch and image size: dense over pruned, both predicted."""

    batch: int
    image_size: int
    dense_ms: float
    pruned_ms: float

    @property
    def gain(self) -> float:
        """Return how many times as fast the pruned model is."""
        return self.dense_ms / self.pruned_ms

    @property
    def pays(self) -> bool:
        """Return whether pruning is faster by more than timings differ."""
        return self.gain >= _PAYS


@dataclass(frozen=True)
class Advised:
    """The schedule that the advice is about, on the grid that it was measured with.

    fixed_ms, step_ms: of a call with `batch` frames of `image_size`, as in `Staircase`; extra: rows
    beside the patches.
    """

    stages: tuple[Stage, ...]
    depth: int
    patches: int
    extra: int
    image_size: int
    batch: int
    fixed_ms: float
    step_ms: float


def settings(stairs: Mapping[int, Stair], reference: Advised) -> list[Setting]:
    """Return what pruning gains at every batch of `stairs` and every size of `SIZES`.

    Token counts beyond those measured are extrapolated. Embedding and steps are taken to grow with
    the patches of a call.
    """
    return [
        _setting(stair, reference, batch, size)
        for batch, stair in sorted(stairs.items())
        for size in SIZES
    ]


def _setting(stair: Stair, known: Advised, batch: int, size: int) -> Setting:
    larger = (size / known.image_size) ** 2
    patches = max(1, round(known.patches * larger))
    stages = [Stage(one.block, max(1, round(one.keep * larger))) for one in known.stages]
    more = larger * batch / known.batch
    fixed = known.fixed_ms * more
    steps = known.step_ms * len(stages) * max(1.0, more)
    dense = estimate(stair, (), known.depth, patches, known.extra)
    pruned = estimate(stair, stages, known.depth, patches, known.extra)
    return Setting(batch, size, fixed + dense, fixed + pruned + steps)


def words(found: Sequence[Setting], stages: Sequence[Stage]) -> str:
    """Say where pruning pays, such as "it pays from batch 8 at 224 pixels and batch 1 at 384"."""
    schedule = ",".join(map(str, stages))
    least: dict[int, int] = {}
    for one in found:
        if one.pays:
            least[one.image_size] = min(least.get(one.image_size, one.batch), one.batch)
    if not least:
        return f"pruning ({schedule}) pays here at no batch of {_listed(found)}"
    where = []
    before = math.inf
    for size, batch in sorted(least.items()):
        if batch < before:
            where.append(f"batch {batch} at {size} pixels")
            before = batch
    return f"pruning ({schedule}) is predicted to pay here from {' and from '.join(where)}"


def _listed(found: Sequence[Setting]) -> str:
    batches = sorted({one.batch for one in found})
    sizes = sorted({one.image_size for one in found})
    return f"{', '.join(map(str, batches))} and no size of {', '.join(map(str, sizes))} pixels"
