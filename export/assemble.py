"""From settings to a PyTorch model: backbone, weights, stages and hash head, all checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fgdeploy import photos
from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import CheckpointError, DataError, ImageError, UsageError
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.graph import DeployGraph, Head, shortcuts
from fgdeploy.models import checkpoint, methods, source, trained, vit
from fgdeploy.models.checkpoint import StateDict
from fgdeploy.models.heads import ClassHashHead, ProjectionHead
from fgdeploy.models.staged import PUBLISHED, StagedViT
from fgdeploy.models.stages import Stage, check
from fgdeploy.models.trained import TrainedConfig
from fgdeploy.models.vit import Normalisation, ViT
from fgdeploy.photos.images import Preprocess
from fgdeploy.training.projection import Projection, fit_itq, random_hyperplanes

DEFAULT_BITS = 64

Notify = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Model:
    """A loaded model: what the deployed graph and its PyTorch reference are both made from.

    targets: the codes that a training drew its photos to, for evaluation as published.
    """

    method: methods.Method
    backbone: str
    image_size: int
    vit: ViT
    stages: tuple[Stage, ...]
    head: Head
    head_facts: dict[str, Any]
    norm: Normalisation
    preprocess: Preprocess
    source: str
    targets: Targets | None = None

    @property
    def bits(self) -> int:
        """Return the bits of a code."""
        head = self.head
        return int(
            (head.head_hash if isinstance(head, ClassHashHead) else head.linear).out_features
        )

    def deployed(self, logits: bool = False, without: frozenset[str] = frozenset()) -> DeployGraph:
        """Return the graph to export, with every exact simplification but those in `without`."""
        encoder = self.method.encoder(self.vit, self.stages, shortcuts(without))
        return DeployGraph(self.vit, encoder, self.head, self.norm, logits, without).eval()

    def published(self, logits: bool = False) -> DeployGraph:
        """Return the reference: the forward pass as published, nothing simplified."""
        from fgdeploy.export.graph import SIMPLIFICATIONS

        encoder = self.method.encoder(self.vit, self.stages, PUBLISHED)
        every = frozenset(SIMPLIFICATIONS)
        return DeployGraph(self.vit, encoder, self.head, self.norm, logits, every).eval()


def assemble(
    settings: ExportSettings,
    notify: Notify = lambda message: None,
    progress: Progress = lambda done, total: None,
    projection: Projection | None = None,
) -> Model:
    """Build and load the model that `settings` describe.

    notify: told what was chosen where the settings leave it open. progress: (done, total) photos
    while a head is fitted. projection: a fitted head to use in place of fitting one.
    Raises UsageError, CheckpointError, StageError, DataError or ImageError.
    """
    method = methods.get(settings.method)
    config, settings = _with_config(settings, notify)
    given = source.choose(
        method,
        settings.backbone,
        settings.image_size,
        settings.checkpoint,
        settings.weights,
        notify,
    )
    state, name, size = given.state, given.name, given.size
    kind = _head_kind(settings, state)
    net = given.make(settings.seed)
    if state is not None and state["pos_embed"].shape != net.pos_embed.shape:
        notify(f"position embedding of {name} resized to {size} pixels, bilinearly")
    shape = vit.shape(net)
    stages = (
        method.schedule.stages(shape.depth, shape.patches)
        if settings.stages is None
        else check(settings.stages, shape.depth, shape.patches)
    )
    if settings.head == "auto" and kind != "trained":
        hint = "; --head itq --fit-data FOLDER ranks better" if kind == "lsh" else ""
        notify(f"hash head {kind} (no trained one{hint})")
    norm = vit.normalisation(net)
    resize = (
        round(size * method.resize_ratio) if settings.crop is None else round(size / settings.crop)
    )
    if config is not None and settings.crop is None:  # as it was trained
        resize = round(size * config.preprocess.resize / config.preprocess.size)
    preprocess = Preprocess(size, resize, method.interpolation, norm.mean, norm.std)
    encoder = method.encoder(net, stages, shortcuts(frozenset()))
    head: Head
    if kind == "trained":
        assert state is not None
        head, facts = _trained_head(settings, state, shape.width, name)
    else:
        if projection is None:
            projection, facts = _fitted_head(
                settings,
                kind,
                shape.width,
                lambda: _Embedder(net, encoder, norm, preprocess),
                progress,
            )
        else:
            facts = {"kind": kind}
        head = ProjectionHead(
            torch.tensor(projection.weight, dtype=torch.float32),
            torch.tensor(projection.bias, dtype=torch.float32),
        )
    net.eval().requires_grad_(False)
    return Model(
        method,
        given.backbone,
        size,
        net,
        stages,
        head.eval().requires_grad_(False),
        facts,
        norm,
        preprocess,
        name,
        _targets(settings, config, kind),
    )


def _targets(settings: ExportSettings, config: TrainedConfig | None, kind: str) -> Targets | None:
    """Return the target codes that a training left beside its weights, for its trained head."""
    if config is None or kind != "trained" or settings.checkpoint is None:
        return None
    path = settings.checkpoint.parent / TARGETS_FILE
    if not path.is_file():
        return None
    targets = Targets.load(path)
    if targets.bits != config.bits or tuple(targets.classes.tolist()) != config.classes:
        raise CheckpointError(
            f"{path} is of other classes or bits than {settings.checkpoint.name}; copy both from "
            "one run, or move it away"
        )
    return targets


def _with_config(
    settings: ExportSettings, notify: Notify
) -> tuple[TrainedConfig | None, ExportSettings]:
    """Fill in what the config beside a trained checkpoint says and the settings leave open."""
    if settings.checkpoint is None:
        return None, settings
    path = trained.locate(settings.checkpoint)
    settings = dataclasses.replace(settings, checkpoint=path)
    config = trained.load_config(path)
    if config is None:
        return None, settings
    if config.method != settings.method:
        raise CheckpointError(
            f"{path} was trained as {config.method}, not {settings.method}; pass --method "
            f"{config.method}"
        )
    if settings.backbone not in (None, config.backbone):
        raise CheckpointError(
            f"{path} was trained on {config.backbone}; leave --backbone {settings.backbone} out"
        )
    size = settings.image_size or config.image_size
    stages = settings.stages
    if stages is None and (size == config.image_size or not config.stages):
        stages = config.stages  # at another size the method's fractions decide anew
    filled = dataclasses.replace(settings, backbone=config.backbone, image_size=size, stages=stages)
    recipe = config.training.get("recipe", "unknown")
    notify(
        f"{path.name}: {config.method} on {config.backbone}, {len(config.classes)} classes, "
        f"{config.bits} bits, recipe {recipe}, as {path.with_suffix('.json').name} says"
    )
    return config, filled


def _head_kind(settings: ExportSettings, state: StateDict | None) -> str:
    has_trained = state is not None and "head_hash.weight" in state
    if settings.head == "trained" and not has_trained:
        raise CheckpointError(
            "the trained head needs a --checkpoint with head_hash.weight; "
            "use --head itq --fit-data FOLDER or --head lsh instead"
        )
    if settings.head == "itq" and settings.fit_data is None:
        raise UsageError("--head itq is fitted on photos; name a folder or CSV with --fit-data")
    if settings.head != "auto":
        return settings.head
    odd = [key for key in state or () if key.startswith("head_hash") and not has_trained]
    if odd:
        raise CheckpointError(
            f"the checkpoint has {odd[0]} but no head_hash.weight, so its hash head is of another "
            "form; rename the keys, or choose --head itq or --head lsh"
        )
    if has_trained:
        return "trained"
    return "lsh" if settings.fit_data is None else "itq"


def _trained_head(
    settings: ExportSettings, state: StateDict, width: int, name: str
) -> tuple[ClassHashHead, dict[str, Any]]:
    keys = ("head.weight", "head.bias", "head_hash.weight", "head_hash.bias")
    if missing := [key for key in keys if key not in state]:
        raise CheckpointError(f"{name} lacks {', '.join(missing)}, which the trained head needs")
    outer, inner = state["head_hash.weight"], state["head.weight"]
    if outer.ndim != 2 or inner.ndim != 2:
        raise CheckpointError(
            f"{name}: expected matrices head.weight and head_hash.weight, got "
            f"{tuple(inner.shape)} and {tuple(outer.shape)}"
        )
    if others := [k for k in state if k.split(".")[0] in checkpoint.HEADS and k not in keys]:
        raise CheckpointError(
            f"{name} has {others[0]} beside its class and hash head, which would be left out; "
            "EET's trained head is head and head_hash alone"
        )
    bits, classes = (int(side) for side in outer.shape)
    if inner.shape[0] != classes:
        raise CheckpointError(
            f"{name}: head_hash takes {classes} inputs, but head gives {inner.shape[0]} classes; "
            "EET's hash head works on the class logits"
        )
    if settings.bits is not None and settings.bits != bits:
        raise CheckpointError(
            f"--bits {settings.bits} does not match {name}, whose hash head has {bits} bits; "
            "leave --bits out, or fit another head with --head itq"
        )
    check_bits(bits)
    head = ClassHashHead(width, classes, bits)
    given = {key: state[key] for key in keys}
    checkpoint.load_matching(head, given, head.state_dict(), name)
    return head, {"kind": "trained", "classes": classes}


def _fitted_head(
    settings: ExportSettings,
    kind: str,
    width: int,
    embedder: Callable[[], _Embedder],
    progress: Progress,
) -> tuple[Projection, dict[str, Any]]:
    bits = DEFAULT_BITS if settings.bits is None else settings.bits
    facts: dict[str, Any] = {"kind": kind, "seed": settings.seed}
    rows = None
    if settings.fit_data is not None:
        found = photos.read(settings.fit_data)
        if any(photo.split for photo in found):
            found = photos.of_split(found, "train")  # never fit on what will be asked
        chosen = photos.spread(found, settings.fit_images, settings.seed)
        rows, skipped = embedder().run([photo.path for photo in chosen], progress)
        facts |= {"photos": len(rows), "skipped": skipped}
    if kind == "itq":
        assert rows is not None
        return fit_itq(rows, bits, settings.seed), facts
    mean = None
    if rows is not None:
        from fgdeploy.training.projection import normalise

        mean = normalise(rows).mean(axis=0)
    return random_hyperplanes(width, bits, settings.seed, mean), facts


class _Embedder:
    """Embeddings of photos from the PyTorch model, in batches."""

    def __init__(
        self, net: ViT, encoder: StagedViT, norm: Normalisation, preprocess: Preprocess
    ) -> None:
        self._embed = vit.FoldedEmbedding(net, norm)
        self._encoder = encoder.eval()
        self._preprocess = preprocess

    def run(
        self, paths: list[Path], progress: Progress, batch: int = 32
    ) -> tuple[npt.NDArray[np.float32], int]:
        """Return the embeddings (N, D) and how many photos could not be read."""
        rows, frames, skipped = [], [], 0
        for number, path in enumerate(paths, start=1):
            try:
                frames.append(self._preprocess.frame(path))
            except ImageError:
                skipped += 1
            if frames and (len(frames) == batch or number == len(paths)):
                with torch.inference_mode():
                    x = self._embed(torch.from_numpy(np.stack(frames)))
                    rows.append(self._encoder.encode(x).numpy())
                frames = []
            progress(number, len(paths))
        if not rows:
            raise DataError(f"none of the {len(paths)} photos of --fit-data can be read")
        return np.concatenate(rows), skipped
