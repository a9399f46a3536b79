"""From settings to a network: method, backbone, weights, options and preprocessing, all checked.

The one way for training and export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.core.text import counted
from fgdeploy.models import trained_options
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.embedding import Normalisation, normalisation
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.base import Method
from fgdeploy.models.network import Network
from fgdeploy.models.options import Options
from fgdeploy.models.weights import checkpoint, source, state_dicts, trained
from fgdeploy.models.weights.source import WeightSource
from fgdeploy.models.weights.told import Told
from fgdeploy.models.weights.trained import TrainedConfig
from fgdeploy.photos import Preprocess


@dataclass(frozen=True)
class NetworkSettings:
    """Which network is meant. None means: told by the checkpoint, or the method's default.

    options: texts by name, as `--set` gives them. checkpoint: weights to start from; without one
    `weights` says `pretrained` (timm's hub) or `random` (seeded). weights_key: which network of a
    checkpoint that holds several, by name (`state_dict_ema`, `teacher.backbone`). renames: a user's
    own patterns for its names, PATTERN=REPLACEMENT. crop: the middle
    part of the photo's side that the model sees, above 0 and up to 1.
    """

    method: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    backbone: str | None = None
    image_size: int | None = None
    checkpoint: Path | None = None
    weights: str = "pretrained"
    weights_key: str | None = None
    renames: tuple[str, ...] = ()
    crop: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Assembly:
    """A method on a backbone at one size, with the options and the preprocessing that follow.

    config: what lies beside a checkpoint that a training left, None for any other.
    """

    method: Method
    options: Options
    source: WeightSource
    geometry: Geometry
    norm: Normalisation
    preprocess: Preprocess
    seed: int
    config: TrainedConfig | None = None

    def encoder(self, notify: Notify = silent, dense: bool = False) -> Encoder:
        """Return a new encoder with the source's weights, the same each time.

        dense: without token reduction. Raises CheckpointError for weights that do not fit.
        """
        method, given = self.method, self.source
        vit = backbones.create(
            given.backbone, given.size, 0, self.seed, method.varied(self.options)
        )
        options = self.options.dense() if dense else self.options
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            encoder = method.build(vit, self.norm, options)
            self._load(encoder, notify)  # new weights of a method's own are drawn as well
        return encoder.eval()

    def trainable(self, classes: int, bits: int, dense: bool = False) -> Network:
        """Return a new network with a fresh head, to be trained, the same each time."""
        encoder = self.encoder(dense=dense)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            head = self.method.head.fresh(encoder.width, classes, bits)
        held = encoder.state()
        for name in encoder.frozen():
            held[name].requires_grad_(False)
        return Network(encoder, head, self.options.dense() if dense else self.options)

    def _load(self, encoder: Encoder, notify: Notify) -> None:
        tensors = self.source.tensors()
        if tensors is None:
            encoder.begin()
            return
        parts = (*state_dicts.HEADS, *self.method.head.parts)
        given = checkpoint.without_heads(tensors, parts)
        given = checkpoint.read_by_cls(given, self.source.name, notify)
        given = {name: value for name, value in given.items() if name not in encoder.unused}
        wanted, vit = encoder.state(), encoder.vit
        held = vit.pos_embed
        if "pos_embed" in given and held is not None and given["pos_embed"].shape != held.shape:
            given["pos_embed"] = checkpoint.resize_positions(given["pos_embed"], vit)
            notify(
                f"position embedding of {self.source.name} resized to {self.source.size} pixels, "
                "bilinearly"
            )
        given = encoder.fitted(given)
        own = encoder.own()
        if own and not own & set(given):  # a plain backbone: the method's own weights start fresh
            notify(f"{self.source.name} holds none of {self.method.name}'s own weights: new ones")
            wanted = {name: value for name, value in wanted.items() if name not in own}
            checkpoint.load_matching(wanted, given, self.source.name)
            encoder.begin()
            return
        checkpoint.load_matching(wanted, given, self.source.name)


def choose(
    settings: NetworkSettings,
    notify: Notify = silent,
    as_trained: bool = True,
    held: Options | None = None,
) -> Assembly:
    """Return what `settings` mean.

    held: resolved options, as a manifest holds them, in place of all that is said of them.

    as_trained: a training's checkpoint is taken as what it was trained as (method, options,
    preprocessing); without, it only gives backbone and weights to go on from. notify: told what
    was chosen where the settings leave it open. Raises UsageError, CheckpointError or StageError.
    """
    if settings.weights_key is not None and settings.checkpoint is None:
        raise UsageError("--weights-key chooses in a checkpoint, and none was given; name one")
    if settings.renames and settings.checkpoint is None:
        raise UsageError("--rename changes names in a checkpoint, and none was given; name one")
    path = None if settings.checkpoint is None else trained.locate(settings.checkpoint)
    config = trained.load_config(path) if path is not None else None
    method = _method(settings, config, path, as_trained)
    if as_trained and config is not None and path is not None:
        _check_same(settings, config, path)
        recipe = config.training.get("recipe", "unknown")
        notify(
            f"{path.name}: {config.method} on {config.backbone}, "
            f"{counted(len(config.classes), 'class')}, "
            f"{config.bits} bits, recipe {recipe}, as {path.with_suffix('.json').name} says"
        )
    given = source.choose(
        method.backbone,
        method.rename,
        settings.backbone or (config.backbone if config else None),
        settings.image_size or (config.image_size if config else None),
        path,
        settings.weights,
        notify,
        settings.weights_key,
        registry.teller(settings.method) if config is None else None,
        settings.renames,
    )
    told = given.told if as_trained else None
    trained_as = config if as_trained else None
    options = held
    if options is None:
        options = trained_options.choose(method, settings.options, given, trained_as, told, notify)
    vit = backbones.create(given.backbone, given.size, 0, settings.seed, method.varied(options))
    geometry, norm = backbones.geometry(vit), normalisation(vit)
    if told is not None and told.colours is not None:
        norm = Normalisation(*told.colours)
    preprocess = Preprocess(
        given.size,
        _resize(settings, method, given.size, trained_as, told),
        method.photometry.interpolation,
        norm.mean,
        norm.std,
        method.photometry.square if told is None or told.square is None else told.square,
    )
    return Assembly(
        method,
        options.resolved(geometry) if held is None else options,
        given,
        geometry,
        norm,
        preprocess,
        settings.seed,
        config,
    )


def _method(
    settings: NetworkSettings, config: TrainedConfig | None, path: Path | None, as_trained: bool
) -> Method:
    asked = registry.get(settings.method)
    if config is None or (settings.method is not None and not as_trained):
        return asked
    if not as_trained and config.method != asked.name:
        raise CheckpointError(
            f"{path} was trained as {config.method}, not {asked.name}; pass --method "
            f"{config.method}"
        )
    if settings.method not in (None, config.method):
        raise CheckpointError(
            f"{path} was trained as {config.method}, not {settings.method}; pass --method "
            f"{config.method}"
        )
    return registry.get(config.method)


def _check_same(settings: NetworkSettings, config: TrainedConfig, path: Path) -> None:
    if settings.backbone not in (None, config.backbone):
        raise CheckpointError(
            f"{path} was trained on {config.backbone}; leave --backbone {settings.backbone} out"
        )


def _resize(
    settings: NetworkSettings,
    method: Method,
    size: int,
    config: TrainedConfig | None,
    told: Told | None,
) -> int:
    """Return the photo's side in pixels that `size` is cut from."""
    if settings.crop is not None:
        return round(size / settings.crop)
    if config is not None:
        return round(size * config.preprocess.resize / config.preprocess.size)
    if told is not None and told.resize and told.size:
        return round(size * told.resize / told.size)
    return round(size * method.photometry.resize_ratio)
