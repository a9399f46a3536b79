"""The backbone of a training: what it is, its weights, and networks made on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets
from fgdeploy.models import checkpoint, methods, source, trained, vit
from fgdeploy.models.methods import Method
from fgdeploy.models.source import WeightSource
from fgdeploy.models.staged import Shortcuts
from fgdeploy.models.stages import Stage, check
from fgdeploy.models.vit import Normalisation
from fgdeploy.photos.images import Preprocess
from fgdeploy.training.data import Division
from fgdeploy.training.network import HashNet
from fgdeploy.training.train_settings import WEIGHTS, TrainSettings


@dataclass(frozen=True)
class Backbone:
    """A method on a backbone at one size, with the stages and the preprocessing that follow."""

    method: Method
    source: WeightSource
    stages: tuple[Stage, ...]
    norm: Normalisation
    preprocess: Preprocess
    patch: int
    seed: int

    @classmethod
    def choose(cls, settings: TrainSettings, notify: Callable[[str], None]) -> Backbone:
        """Return what `settings` mean. Raises UsageError, CheckpointError or StageError."""
        method = methods.get(settings.method)
        named = settings.weights in WEIGHTS
        path = None if named else trained.locate(Path(settings.weights))
        if path is not None and not path.is_file():
            raise UsageError(
                f"--weights {settings.weights}: expected {', '.join(WEIGHTS)} or a checkpoint's "
                "path, and there is no such file"
            )
        config = trained.load_config(path) if path is not None else None
        given = source.choose(
            method,
            settings.backbone or (config.backbone if config else None),
            settings.image_size or (config.image_size if config else None),
            path,
            settings.weights if named else "pretrained",
            notify,
        )
        net = given.make(settings.seed)
        shape = vit.shape(net)
        stages = (
            method.schedule.stages(shape.depth, shape.patches)
            if settings.stages is None
            else check(settings.stages, shape.depth, shape.patches)
        )
        norm = vit.normalisation(net)
        ratio = method.resize_ratio if settings.crop is None else 1 / settings.crop
        resize = round(given.size * ratio)
        preprocess = Preprocess(given.size, resize, method.interpolation, norm.mean, norm.std)
        return cls(method, given, stages, norm, preprocess, shape.patch_size, settings.seed)

    def network(self, pruned: bool, classes: int, bits: int) -> HashNet:
        """Return a new network with the source's weights and fresh heads, the same each time."""
        stages = self.stages if pruned else ()
        encoder = self.method.encoder(self.source.make(self.seed), stages, Shortcuts())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return HashNet(encoder, stages, classes, bits)


def frozen_teacher(
    settings: TrainSettings, student: Backbone, division: Division, labels: npt.NDArray[np.int64]
) -> tuple[HashNet | None, npt.NDArray[np.int8] | None]:
    """Return the teacher of --teacher, and the target codes (n, bits) that it was trained to.

    The codes come from the targets.npz beside it: a student that is drawn to other codes could
    learn nothing from the teacher's hashes. Raises CheckpointError where they do not fit.
    """
    if settings.teacher is None:
        return None, None
    path = trained.locate(settings.teacher)
    state = checkpoint.read(path)
    config = trained.load_config(path)
    if "head_hash.weight" not in state:
        raise CheckpointError(
            f"--teacher {path}: no head_hash.weight in it; give a checkpoint that was trained to "
            "hash, such as the teacher.safetensors of an earlier run"
        )
    bits, classes = (int(side) for side in state["head_hash.weight"].shape)
    if (bits, classes) != (settings.bits, len(division.classes)):
        raise CheckpointError(
            f"--teacher {path}: trained for {classes} classes and {bits} bits, expected "
            f"{len(division.classes)} and {settings.bits}; train one on the same data and --bits"
        )
    teacher = student
    if config is not None and config.stages:
        raise CheckpointError(
            f"--teacher {path}: a pruned network; a teacher looks at all patches, so give the "
            "teacher.safetensors of a run, or one trained with --without ctp"
        )
    if config is not None:
        if config.classes != division.classes:
            raise CheckpointError(
                f"--teacher {path}: its classes have other names or another order than the data; "
                "train one on the same data"
            )
        given = WeightSource(config.backbone, config.image_size, "pretrained", state, path.name)
        if config.image_size != student.source.size:
            raise CheckpointError(
                f"--teacher {path}: trained at {config.image_size} pixels, the student sees "
                f"{student.source.size}; pass --image-size {config.image_size}"
            )
        teacher = dataclasses.replace(student, source=given, stages=config.stages)
    else:
        given = dataclasses.replace(student.source, state=state, name=path.name)
        teacher = dataclasses.replace(student, source=given, stages=())
    net = teacher.network(bool(teacher.stages), classes, bits)
    heads: dict[str, Tensor] = {key: state[key] for key in net.heads.state_dict() if key in state}
    checkpoint.load_matching(net.heads, heads, net.heads.state_dict(), path.name)
    return net, _targets_beside(path, division, labels, bits)


def _targets_beside(
    path: Path, division: Division, labels: npt.NDArray[np.int64], bits: int
) -> npt.NDArray[np.int8]:
    beside = path.parent / TARGETS_FILE
    if not beside.is_file():
        raise CheckpointError(
            f"--teacher {path}: no {TARGETS_FILE} beside it, so the codes that it was trained to "
            "are not known; copy the whole folder of its run"
        )
    targets = Targets.load(beside)
    if tuple(targets.classes.tolist()) != division.classes or targets.bits != bits:
        raise CheckpointError(f"{beside} is of other classes or bits; copy the teacher's own")
    if np.array_equal(targets.labels, labels):
        packed = targets.codes
    else:  # other photos of the same classes: each class by its first code
        _, first = np.unique(targets.labels, return_index=True)
        packed = targets.codes[first[labels]]
    signs = np.unpackbits(packed, axis=1)[:, :bits].astype(np.int8)
    return np.asarray(signs * 2 - 1, dtype=np.int8)
