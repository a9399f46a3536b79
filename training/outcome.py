"""A trained network on its photos: those held out by every protocol, its own against targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.progress import Bars
from fgdeploy.evaluation.metrics import Detail
from fgdeploy.evaluation.protocol import ASYM_SIGN, ASYM_TARGETS, score_protocols
from fgdeploy.evaluation.targets import Targets
from fgdeploy.evaluation.worst_classes import CodedPhotos, WorstClass, find_worst
from fgdeploy.models.embedder import Embedder
from fgdeploy.models.network import Network
from fgdeploy.photos import Photo
from fgdeploy.training.division import Division
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

    def map_of(self, protocol: str) -> float | None:
        """Return the mAP of a protocol, 0..1, None where it was not measured."""
        found = self.protocols.get(protocol)
        return None if found is None else found.scores.map


def look_back(
    embedder: Embedder,
    net: Network,
    name: str,
    division: Division,
    targets: Targets | None,
    bits: int,
    bars: Bars,
) -> LookBack:
    """Hash all photos of a training with one of its networks, and score them. name: for bars."""
    if not division.test and targets is None:
        return LookBack({}, None)
    own = embedder.codes(net, division.train, bars(f"training photos, {name}"))
    made = LookBack({}, None)
    if division.test:
        asking = embedder.codes(net, division.test, bars(f"test photos, {name}"))
        made = _scored(_coded(asking, division.test), _coded(own, division.train), targets, bits)
    if targets is None:
        return made
    maps = made.map_of(ASYM_TARGETS), made.map_of(ASYM_SIGN)
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


def labels_of(which: Sequence[Photo]) -> npt.NDArray[np.str_]:
    """Return the class names of photos, (n,)."""
    return np.array([photo.label for photo in which], dtype=np.str_)
