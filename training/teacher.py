"""A teacher that is given: trained weights to learn from, frozen, and the codes they know."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import CheckpointError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.core.text import counted
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets
from fgdeploy.models.assembly import Assembly
from fgdeploy.models.network import Network
from fgdeploy.models.weights import checkpoint, trained
from fgdeploy.models.weights.source import WeightSource
from fgdeploy.training.division import Division
from fgdeploy.training.train_settings import TrainSettings


def frozen_teacher(
    settings: TrainSettings,
    student: Assembly,
    division: Division,
    labels: npt.NDArray[np.int64],
    notify: Notify = silent,
) -> tuple[Network | None, npt.NDArray[np.int8] | None]:
    """Return the teacher of --teacher, and the target codes (n, bits) that it was trained to.

    The codes come from the targets.npz beside it: a student that is drawn to other codes could
    learn nothing from the teacher's hashes. notify: told which network of the file was taken, where
    it holds several. Raises CheckpointError where they do not fit.
    """
    if settings.teacher is None:
        return None, None
    path = trained.locate(settings.teacher)
    state = checkpoint.read(path, student.method.rename, notify=notify)
    config = trained.load_config(path)
    if "head_hash.weight" not in state:
        raise CheckpointError(
            f"--teacher {path}: no head_hash.weight in it; give a checkpoint that was trained to "
            "hash, such as the teacher.safetensors of an earlier run"
        )
    bits, classes = (int(side) for side in state["head_hash.weight"].shape)
    if (bits, classes) != (settings.bits, len(division.classes)):
        raise CheckpointError(
            f"--teacher {path}: trained for {counted(classes, 'class')} and {bits} bits, expected "
            f"{len(division.classes)} and {settings.bits}; train one on the same data and --bits"
        )
    teacher = student
    if config is not None and config.options != config.options.dense():
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
        teacher = dataclasses.replace(student, source=given)
    else:
        given = dataclasses.replace(student.source, state=state, name=path.name)
        teacher = dataclasses.replace(student, source=given)
    net = teacher.trainable(classes, bits, dense=True)
    held = net.head.state_dict()
    given_head = {key: state[key] for key in held if key in state}
    checkpoint.load_matching(held, given_head, path.name)
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
