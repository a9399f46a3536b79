"""What a method is: one declaration of all that the rest of fgdeploy needs to know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.backbone.vit import Geometry, ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Head
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.options import Options
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.weights.told import Claim, Teller


@dataclass(frozen=True)
class Photometry:
    """How photos become frames, as a method's authors evaluate.

    resize_ratio: the photo's side before cropping over the model's input; interpolation: the
    filter; square: both sides are scaled to it, and not the short side alone.
    """

    resize_ratio: float = 256 / 224
    interpolation: str = "bilinear"
    square: bool = False


@dataclass(frozen=True)
class ByEpoch:
    """A rate that changes from epoch to epoch: warm-up, half a cosine over all but `cooldown`.

    warmup, cooldown: epochs. start: where the warm-up begins; least: where the cosine ends and
    the cooldown stays; both over lr. Epoch e of the cosine counts from the first of the warm-up.
    """

    warmup: int
    start: float
    least: float
    cooldown: int

    def scaled(self, factor: float) -> ByEpoch:
        """Return the same for a training of `factor` times the epochs."""
        warmup, cooldown = (round(number * factor) for number in (self.warmup, self.cooldown))
        return dataclasses.replace(self, warmup=warmup, cooldown=cooldown)


@dataclass(frozen=True)
class Recipe:
    """How a method is trained: its objective and the settings that go with it.

    objective: where the loss is, `module:name` (imported when a training begins, as models know
    nothing of training), or the class itself. optimizer: timm's name. lr is per step of `batch`
    images; warmup in steps, from first_lr; the cosine ends at last_lr. layer_decay: rate of a block
    over that of the next. head_rate: rate of the heads and of a method's own parameters over lr.
    least_area: least part of a photo's area in a training view; augment: makes the views from
    (image side, least area), None for crop and flip. per_class: photos of a class in a batch, None
    for batches in no order of class. parts: what `--without` may name. eps: of the optimiser, None
    for its own. boxes: it asks where the object of each photo is, and `augment` makes the views
    from a photo and its box. frozen: blocks from below that do not learn, nor does the embedding
    under them; 0 for a backbone that learns whole. sized: rate, warm-up and epochs follow from the
    set, where a user says nothing. passes: over the photos in an epoch, which has one row in the
    log. settled: share of bits of the training views that reach their target codes, in two epochs
    in a row, at which a training ends early, 0 for never.
    """

    objective: str | Callable[[Any], Any]
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
    augment: str | Callable[[int, float], Any] | None = None
    per_class: int | None = None
    clip_norm: float | None = None
    parts: Sequence[str] = ()
    by_epoch: ByEpoch | None = None
    drop_last: bool = False
    eps: float | None = None
    boxes: bool = False
    first_lr: float = 0.0
    last_lr: float = 0.0
    frozen: int = 0
    sized: bool = False
    passes: int = 1
    settled: float = 0.0


# The recipe for small budgets, which needs nothing of a method but its network; measured in
# benchmarks/README.md.
FAST = Recipe(
    objective="fgdeploy.training.fast:FastObjective",
    epochs=6,
    batch=32,
    optimizer="adamw",
    lr=1e-3,
    momentum=0.9,
    weight_decay=0.05,
    layer_decay=0.85,
    head_rate=2.0,
    warmup=40,
    least_area=0.3,
    sized=True,
    settled=0.99,
    parts=("ctp", "codes", "start"),
)


# Options, stages and the backbone's geometry to the texts of options by name.
Schedules = Callable[[Any, Sequence[Stage], Geometry], dict[str, str]]


def _nothing_to_say(options: Any) -> str | None:
    return None


def _claims_nothing(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    return False


def _as_it_is(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)


@dataclass(frozen=True)
class Method:
    """A published method, whole: nothing outside its file needs to know its name.

    build: makes the encoder on a ViT from its mean and std and resolved options; what random
    state it needs is torch's own, seeded. backbone: the default one, by timm's name. head: the
    trained head's type. rename: an authors' checkpoint to the names of `Network.state`. told: what
    an authors' checkpoint says of itself; claims: whether one is surely of this method. pins:
    patterns (fnmatch) of graph nodes that stay in float32 in every precision, because they decide
    (scores, boxes), or a function of the options that gives them; half: patterns of nodes outside
    blocks and steps that FP16 graphs may compute in half precision. outputs: extras that are
    outputs of the graph, by name, or a function of the options that gives them. variant: what the
    backbone has otherwise than timm's, or a function of the options that gives it. caution: what a
    user must know of these options, or None. schedule: writes stages (none: keep every token) as
    texts of the options that hold them, from (options, stages, geometry); None for a method that
    prunes by no stages.
    """

    name: str
    backbone: str
    build: Callable[[ViT, Normalisation, Any], Encoder]
    options: type[Options] = Options
    photometry: Photometry = Photometry()
    head: type[Head] = ClassHashHead
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = _as_it_is
    told: Teller | None = None
    claims: Claim = _claims_nothing
    pins: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ()
    half: tuple[str, ...] = ()
    outputs: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ()
    variant: Variant | Callable[[Any], Variant] = backbones.TIMMS
    caution: Callable[[Any], str | None] = _nothing_to_say
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    schedule: Schedules | None = None

    def scheduled(
        self, options: Options, stages: Sequence[Stage], geometry: Geometry
    ) -> dict[str, str]:
        """Return texts of options, as `--set` takes them, that prune by these stages.

        Where a method counts by rates, a stage may keep a token or two more or fewer. Raises
        UsageError for a method without a schedule.
        """
        if self.schedule is None:
            raise UsageError(
                f"{self.name} prunes by no stages, so there is no schedule to tune; take a method "
                "that does, such as the default one"
            )
        return self.schedule(options, stages, geometry)

    def pinned(self, options: Options) -> tuple[str, ...]:
        """Return the pins of a network with these options, which are resolved."""
        return self.pins(options) if callable(self.pins) else self.pins

    def further(self, options: Options) -> tuple[str, ...]:
        """Return the outputs of a graph with these options, beside code, hash and embedding."""
        return self.outputs(options) if callable(self.outputs) else self.outputs

    def varied(self, options: Options) -> Variant:
        """Return what the backbone of a network with these options has otherwise than timm's."""
        return self.variant(options) if callable(self.variant) else self.variant

    def recipe(self, name: str) -> Recipe:
        """Return a recipe by name; `fast` is there for every method. Raises UsageError."""
        known = {"fast": FAST, **self.recipes}
        if name not in known:
            raise UsageError(f"{self.name} has no recipe {name!r}; choose {', '.join(known)}")
        return known[name]
