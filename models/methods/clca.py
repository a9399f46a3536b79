"""CLCA: cross-layer cache and aggregation over any token reduction (arkel23/CLCA).

'Cross-Layer Cache Aggregation for Token Reduction in Ultra-Fine-Grained Image Recognition'. A CLR
token behind the patches, a cache that brings back what earlier blocks knew, and a head (CLA) over
the CLS rows of the reducing blocks and the last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.vit import Geometry, ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.aggregate import Aggregate, WeightedAggregate
from fgdeploy.models.methods import clca_files, clca_keys
from fgdeploy.models.methods.base import Method
from fgdeploy.models.methods.reduced import BACKBONE, PAPER, PHOTOMETRY, Reduced
from fgdeploy.models.reduce.cross_layer import Carriers, cached
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction
from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.models.reduce.stages import Stage

NONE = clca_files.NONE


@dataclass(frozen=True)
class CLCAOptions(ReducedOptions):
    """reduction: by name, or `none`. cla: the aggregating head. cache; clr: how many CLR tokens.

    kernels: channels that the head makes of one; 0 is the older head. gap: the cache holds the mean
    token of each block; pool_cls, pool_clr: CLS and the first CLR are in that mean. at_last: the
    cache comes back behind the last block but one too. neighbours, equal_weight: of DPC-KNN. fuse:
    of Cropr. threshold: of MaMe.
    """

    reduction: str = "evit"
    cla: bool = True
    cache: bool = True
    clr: int = 1
    kernels: int = 2
    gap: bool = True
    pool_cls: bool = False
    pool_clr: bool = False
    at_last: bool = True
    neighbours: int = 5
    equal_weight: bool = False
    fuse: bool = True
    threshold: float = 0.8

    @classmethod
    def parse(cls, given: Mapping[str, str], on: CLCAOptions | None = None) -> CLCAOptions:
        """Return options from texts by name. Raises UsageError for what does not go together."""
        options = super().parse(given, on)
        same = on is not None and (on.cache, on.cla) == (options.cache, options.cla)
        if options.cache and not options.cla and not same:  # a file is run as it was trained
            raise UsageError(
                "--set cla=false: the cache feeds the CLA head and needs it; add --set cache=false"
            )
        return options

    def resolved(self, geometry: Geometry) -> CLCAOptions:
        """Return the options with the blocks of this backbone. Raises StageError or UsageError."""
        self._check()
        return super().resolved(geometry)

    def _check(self) -> None:
        known = (*REDUCTIONS, NONE)
        if self.reduction not in known:
            raise UsageError(
                f"--set reduction={self.reduction}: there is no such reduction; choose one of "
                f"{', '.join(known)}"
            )
        for name, least in (("clr", 0), ("kernels", 0), ("neighbours", 1)):
            if not least <= (value := getattr(self, name)) <= 64:
                raise UsageError(f"--set {name}={value}: expected a number from {least} to 64")
        if self.cache and not (self.gap or self.clr):
            raise UsageError(
                "--set gap=false and clr=0 leave the cache nothing to keep; add --set cache=false"
            )

    @property
    def reduces(self) -> bool:
        """Return whether any token goes."""
        return self.reduction != NONE and super().reduces

    def dense(self) -> CLCAOptions:
        """Return the options that keep every token."""
        return dataclasses.replace(self, reduction=NONE)


def build(vit: ViT, norm: Normalisation, options: CLCAOptions) -> Encoder:
    """Return CLCA on `vit`."""
    shape, reducing = backbones.geometry(vit), options.blocks or ()
    start = shape.patches + shape.prefix_tokens + options.clr
    reduction = _reduction(options)
    steps = reduction.steps(
        _options_of(reduction, options), shape, start=start, cached=options.cache
    )
    if options.cache:
        carriers = Carriers(options.gap, options.clr, options.pool_cls, options.pool_clr)
        steps = cached(steps, reducing, carriers, options.at_last)
    return Reduced(vit, norm, steps, reducing, options.clr, _aggregate(shape, options))


def pinned(options: CLCAOptions) -> tuple[str, ...]:
    """Return the pins of the chosen reduction."""
    return _reduction(options).pinned(options)


def caution(options: CLCAOptions) -> str | None:
    """Return what a user must know of the chosen reduction."""
    return _reduction(options).caution(options)


def schedule(options: CLCAOptions, stages: Sequence[Stage], geometry: Geometry) -> dict[str, str]:
    """Return the options that prune by these stages; rows of the cache come on top."""
    return _reduction(options).scheduled(options, stages, geometry)


def _reduction(options: CLCAOptions) -> Reduction:
    return REDUCTIONS.get(options.reduction, _KEEPS_ALL)


def _options_of(reduction: Reduction, options: CLCAOptions) -> ReducedOptions:
    """Return the reduction's own options, with all that CLCA's say of them."""
    names = {f.name for f in dataclasses.fields(reduction.options)}
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    if not options.reduces:
        values["keep_rate"] = (1.0,)
    return reduction.options(**{name: values[name] for name in names & set(values)})


def _aggregate(shape: Geometry, options: CLCAOptions) -> Aggregate | WeightedAggregate | None:
    count = len(options.blocks or ()) + 1
    if not options.cla:
        return None
    if options.kernels == 0:
        return WeightedAggregate(shape.width, count)
    return Aggregate(shape.width, count, options.kernels)


def _no_stage(slot: object, options: object) -> object:
    raise AssertionError("a keep rate of 1 has no stages")


_KEEPS_ALL = Reduction(NONE, _no_stage, "the plain ViT")  # type: ignore[arg-type]

METHOD = Method(
    name="clca",
    backbone=BACKBONE,
    build=build,
    options=CLCAOptions,
    photometry=PHOTOMETRY,
    rename=clca_keys.rename,
    told=clca_files.teller(None, [f.name for f in dataclasses.fields(CLCAOptions)]),
    claims=clca_files.claim(None),
    pins=pinned,
    caution=caution,
    recipes={"paper": PAPER},
    schedule=schedule,
)
