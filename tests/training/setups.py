"""Objectives on a small ViT, and the formulas of docs/methods.md 1.3 in plain float64 code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods import eet
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.training.guidance import Saliency
from fgdeploy.training.objective import Batch, Setup
from fgdeploy.training.target_codes import Signs

NORM = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
SIZE, PATCH, BITS, CLASSES, COUNT, WIDTH = 64, 16, 16, 4, 20, 64
STAGES = (Stage(2, 8), Stage(4, 4))
LABELS = np.random.default_rng(0).permutation(np.arange(COUNT) % CLASSES)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGES = draw(COUNT, 3, SIZE, SIZE, seed=1)


def network(pruned: bool, seed: int) -> Network:
    """Return a network whose heads are large enough to matter, each from its own seed."""
    options = EETOptions(STAGES if pruned else ())
    encoder = eet.build(vit.create("test_vit", SIZE, seed=seed), NORM, options)
    net = Network(encoder, ClassHashHead(WIDTH, CLASSES, BITS), options)
    with torch.no_grad():
        for number, parameter in enumerate(net.head.parameters()):
            parameter.copy_(0.3 * draw(*parameter.shape, seed=10 * seed + number))
    return net


def embed(net: Network) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        rows: npt.NDArray[np.float32] = net(IMAGES).embedding.numpy()
    return rows


def answer(net: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return hashes and logits of images."""
    found = net.hashes(net(images))
    return found["hash"], found["logits"]


def saliency(net: Network, images: Tensor) -> Tensor:
    """Return what guidance scores the patches of images by, [B, N]."""
    seen = Saliency(net)
    net(images, [seen])
    return seen.scores


@dataclass
class Made:
    """A setup, and which networks were made (pruned or not) and embedded for it."""

    setup: Setup
    made: list[bool]
    embedded: list[Network]


def made(*without: str, **changes: Any) -> Made:
    """Return a setup with some parts left out and some values changed."""
    kinds: list[bool] = []
    embedded: list[Network] = []

    def make(pruned: bool) -> Network:
        kinds.append(pruned)
        return network(pruned, len(kinds))

    def look(net: Network) -> npt.NDArray[np.float32]:
        embedded.append(net)
        return embed(net)

    setup = Setup(
        make=make,
        embed=look,
        labels=LABELS,
        classes=CLASSES,
        bits=BITS,
        patch=PATCH,
        seed=5,
        options=EETOptions(),
        without=frozenset(without),
    )
    return Made(dataclasses.replace(setup, **changes), kinds, embedded)


def batch(*rows: int) -> Batch:
    """Return the images at `rows` of the set, by default some in no order."""
    which = torch.tensor(rows or (7, 2, 19, 0, 11, 4))
    return Batch({"image": IMAGES[which]}, torch.from_numpy(LABELS)[which], which)


def frozen_teacher_and_codes() -> tuple[Network, Signs]:
    codes = np.random.default_rng(3).choice(np.array([-1, 1], np.int8), (COUNT, BITS))
    return network(False, 77), codes


def norm(gradients: tuple[Tensor | None, ...]) -> float:
    return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))


# The formulas, in float64 NumPy


def array(x: Tensor) -> Array:
    return x.detach().double().numpy()


def squares(hashes: Tensor, codes: Signs) -> float:
    return float(np.mean((array(hashes) - codes) ** 2))


def entropy(logits: Tensor, labels: Tensor) -> float:
    y = array(logits)
    logs = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    return float(-np.mean([row[label] for row, label in zip(logs, labels.tolist(), strict=True)]))


def one_minus_cosine(one: Tensor, two: Tensor) -> float:
    a, b = array(one), array(two)
    lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(np.mean(1 - (a * b).sum(axis=1) / lengths))


def hidden(images: Tensor, scores: Tensor, transposed: bool) -> Tensor:
    """Return images without their four most salient patches, patch by patch."""
    covered = images.clone()
    for image, row in zip(covered, scores.tolist(), strict=True):
        for place in sorted(range(len(row)), key=lambda n: -row[n])[:4]:
            down, right = divmod(place, SIZE // PATCH)
            if transposed:
                down, right = right, down
            top, left = down * PATCH, right * PATCH
            image[:, top : top + PATCH, left : left + PATCH] = 0
    return covered


def expected_terms(
    student: Network, teacher: Network, codes: Signs, batch: Batch, transposed: bool = False
) -> dict[str, float]:
    """L_student = MSE(h, b) + 0.1 (CE + CE') + (1 - cos); L_teacher = CE + MSE."""
    with torch.no_grad():
        hashes, logits = answer(student, batch.images)
        teacher_hashes, teacher_logits = answer(teacher, batch.images)
        covered = hidden(batch.images, saliency(teacher, batch.images), transposed)
        hidden_logits = answer(student, covered)[1]
    return {
        "hash": squares(hashes, codes),
        "class": 0.1 * entropy(logits, batch.labels),
        "guidance": 0.1 * entropy(hidden_logits, batch.labels),
        "transfer": one_minus_cosine(hashes, teacher_hashes),
        "teacher_hash": squares(teacher_hashes, codes),
        "teacher_class": entropy(teacher_logits, batch.labels),
    }


def values(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def hamming(codes: Signs) -> npt.NDArray[np.int64]:
    """Return all distances (n, n), counted bit by bit."""
    return np.asarray((codes[:, None, :] != codes[None, :, :]).sum(axis=2))


def between(codes: Signs) -> npt.NDArray[np.int64]:
    """Return the distance of every two codes, once each."""
    return np.asarray(hamming(codes)[np.triu_indices(len(codes), 1)])


def some_labels(classes: int, count: int, seed: int) -> Labels:
    """Return labels in no order, every class at least once."""
    chooser = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), chooser.integers(0, classes, count - classes)])
    chooser.shuffle(labels)
    return np.asarray(labels)
