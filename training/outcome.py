"""A trained network on its photos: those held out by every protocol, its own against targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.progress import Bars, Progress
from fgdeploy.evaluation.metrics import Detail, evaluate
from fgdeploy.evaluation.protocol import ASYM_SIGN, ASYM_TARGETS, SYMMETRIC, score_protocols
from fgdeploy.evaluation.targets import Targets
from fgdeploy.evaluation.worst_classes import CodedPhotos, WorstClass, find_worst
from fgdeploy.models.embedder import Embedder
from fgdeploy.models.network import Network
from fgdeploy.photos import Photo
from fgdeploy.training.division import Division
from fgdeploy.training.fold_scores import FoldScores
from fgdeploy.training.reached import Reached, compare_codes


@dataclass(frozen=True)
class LookBack:
    """protocols: by name, none where no photos were held out; reached: None without targets.

    worst: the classes that are found worst by asym_sign.
    """

    protocols: dict[str, Detail]
    reached: Reached | None
    worst: Sequence[WorstClass] = ()

    def scores(self) -> dict[str, dict[str, Any]]:
        """Return the scores by protocol as JSON-ready values."""
        return {name: dataclasses.asdict(one.scores) for name, one in self.protocols.items()}

    def map_of(self, protocol: str, folds: FoldScores | None = None) -> float | None:
        """Return the mAP of a protocol, 0..1, or its mean over folds; None without either."""
        found = self.protocols.get(protocol)
        if found is not None:
            return found.scores.map
        return None if folds is None else folds.mean(protocol)


def look_back(
    embedder: Embedder,
    net: Network,
    name: str,
    division: Division,
    targets: Targets | None,
    bits: int,
    bars: Bars,
    folds: FoldScores | None = None,
) -> LookBack:
    """Hash all photos of a training with one of its networks, and score them.

    name: for bars. folds: where nothing is held out, the gap is that of their means.
    """
    if not division.test and targets is None:
        return LookBack({}, None)
    own = embedder.codes(net, division.train, bars(f"training photos, {name}"))
    made = LookBack({}, None)
    if division.test:
        asking = embedder.codes(net, division.test, bars(f"test photos, {name}"))
        made = _scored(_coded(asking, division.test), _coded(own, division.train), targets, bits)
    if targets is None:
        return made
    maps = made.map_of(ASYM_TARGETS, folds), made.map_of(ASYM_SIGN, folds)
    return dataclasses.replace(made, reached=compare_codes(own, targets, *maps))


def _coded(codes: UInt8Array, which: Sequence[Photo]) -> CodedPhotos:
    return CodedPhotos(codes, labels_of(which), [str(photo.path.resolve()) for photo in which])


def _scored(
    asking: CodedPhotos, gallery: CodedPhotos, targets: Targets | None, bits: int
) -> LookBack:
    protocols = score_protocols(
        asking.codes, asking.labels, gallery.codes, gallery.labels, targets, bits=bits
    )
    worst = find_worst(asking, gallery, protocols[ASYM_SIGN].classes)
    return LookBack(protocols, None, worst)


def quick_scores(
    embedder: Embedder,
    net: Network,
    asked: Sequence[Photo],
    targets: Targets | None,
    progress: Progress,
) -> dict[str, float]:
    """Score photos by asym_targets, which needs no codes of the training photos.

    Without target codes the photos are scored among themselves.
    """
    codes, labels = embedder.codes(net, asked, progress), labels_of(asked)
    if targets is None:
        found = score_protocols(codes, labels, codes, labels, None)
        scores = found[SYMMETRIC].scores if SYMMETRIC in found else None
        kind = SYMMETRIC
    else:
        scores = evaluate(codes, labels, targets.codes, targets.names)
        kind = ASYM_TARGETS
    if scores is None:
        return {}
    return {f"{kind}_map": scores.map, f"{kind}_recall_at_1": scores.recall[1]}


def labels_of(which: Sequence[Photo]) -> npt.NDArray[np.str_]:
    """Return the class names of photos, (n,)."""
    return np.array([photo.label for photo in which], dtype=np.str_)
