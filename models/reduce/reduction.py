"""What a token reduction is: one declaration in its own file, used alone and by CLCA."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fgdeploy.core.json_schema import list_of, number, whole
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.options import Options
from fgdeploy.models.reduce import rates
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.walk import LastStep, Step

_O = TypeVar("_O", bound="ReducedOptions")
_RATES, _BLOCKS = list_of(number(0, 1), 1), list_of(whole(1), 1)


@dataclass(frozen=True)
class ReducedOptions(Options):
    """keep_rate: above 0 and up to 1, one or one a stage; 1 reduces nothing.

    blocks: where tokens are reduced, from 1; None for the published 4,7,10 of 12, scaled.
    """

    keep_rate: tuple[float, ...] = (0.5,)
    blocks: tuple[int, ...] | None = None

    @classmethod
    def read(cls, name: str, text: str) -> Any:
        """Read rates and blocks as lists with commas."""
        if name == "keep_rate":
            return rates.parse_rates(text)
        return rates.parse_blocks(text) if name == "blocks" else super().read(name, text)

    @classmethod
    def from_json(cls: type[_O], entry: Mapping[str, Any]) -> _O:
        """Read lists of numbers."""
        values = dict(entry)
        for name, fits in (("keep_rate", _RATES), ("blocks", _BLOCKS)):
            if values.get(name) is not None:
                fits(values[name], name)
                values[name] = tuple(values[name])
        return super().from_json(values)

    def resolved(self: _O, geometry: Geometry) -> _O:
        """Return the options with the blocks of this backbone. Raises StageError."""
        blocks = self.blocks or rates.default_blocks(geometry.depth)
        rates.check(self.keep_rate, blocks, geometry.depth)
        return dataclasses.replace(self, blocks=blocks)

    def dense(self: _O) -> _O:
        """Return the options that keep every token."""
        return dataclasses.replace(self, keep_rate=(1.0,))

    @property
    def reduces(self) -> bool:
        """Return whether any token goes."""
        return any(rate < 1 for rate in self.keep_rate)


@dataclass(frozen=True)
class Slot:
    """Where a reduction acts: stage `number` (from 1) in block `block` (from 1).

    rates: as given, one for all stages or one each. patches: N patch tokens that entered the first
    block; start: all rows that did. width: D. cached: CLCA's cache adds rows between the stages.
    """

    number: int
    block: int
    rates: tuple[float, ...]
    patches: int
    start: int
    width: int
    cached: bool = False

    @property
    def of_arriving(self) -> float:
        """Return the rate of this stage, of the rows that arrive."""
        return self.rates[0] if len(self.rates) == 1 else self.rates[self.number - 1]

    @property
    def of_all(self) -> float:
        """Return the rate up to this stage, of all patches: one rate to its power; a list as it is.

        The product of floats is the authors' own, as counts are cut off below it.
        """
        return self.rates[0] ** self.number if len(self.rates) == 1 else self.of_arriving


@dataclass(frozen=True)
class Reduction:
    """A token reduction.

    make: the step of one stage. options: what a user may choose where it is used alone. pins:
    patterns of the graph nodes that decide. plain, last: the steps of the other blocks and of the
    last one, where training needs more of them than timm does. source: paper and code. floor: what
    a user must know of its least count, or None. arriving: rates are of the rows that arrive,
    rounded up; else of all patches, rounded down.
    """

    name: str
    make: Callable[[Slot, Any], Step]
    source: str
    options: type[ReducedOptions] = ReducedOptions
    pins: tuple[str, ...] = ()
    plain: Callable[[], Step] = Step
    last: Callable[[], LastStep] = LastStep
    floor: str | None = None
    arriving: bool = False

    def scheduled(
        self, options: ReducedOptions, stages: Sequence[Stage], geometry: Geometry
    ) -> dict[str, str]:
        """Return the options that keep about so many patches: a rate for each stage, its block."""
        if not stages:
            return {"keep_rate": "1"}
        counts = [geometry.patches, *(stage.keep for stage in stages)]
        found = [
            # Half a token from where the count would change: rates are rounded up or down.
            (after - 0.5) / before if self.arriving else (after + 0.5) / counts[0]
            for before, after in itertools.pairwise(counts)
        ]
        return {
            "keep_rate": ",".join(f"{min(rate, 1.0):.6f}" for rate in found),
            "blocks": ",".join(str(stage.block) for stage in stages),
        }

    def pinned(self, options: ReducedOptions) -> tuple[str, ...]:
        """Return the pins that these options need: what reduces nothing decides nothing."""
        return self.pins if options.reduces else ()

    def caution(self, options: ReducedOptions) -> str | None:
        """Return `floor` where a stage should leave less than half of the one before it."""
        if self.floor is None or not options.reduces:
            return None
        rates = (1.0, *options.keep_rate)
        halved = any(after < before / 2 for before, after in itertools.pairwise(rates))
        return self.floor if halved else None

    def steps(self, options: ReducedOptions, geometry: Geometry, **slot: Any) -> dict[int, Step]:
        """Return the steps of all blocks by number; options are resolved.

        slot: `start` and `cached`. A keep rate of 1 reduces nothing, in every reduction.
        """
        steps: dict[int, Step] = {n: self.plain() for n in range(1, geometry.depth)}
        steps[geometry.depth] = self.last()
        if options.reduces:
            shape = {"patches": geometry.patches, "width": geometry.width, **slot}
            for stage, block in enumerate(options.blocks or (), start=1):
                steps[block] = self.make(Slot(stage, block, options.keep_rate, **shape), options)
        return steps
