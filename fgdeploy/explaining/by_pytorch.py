"""What the PyTorch model shows: kept patches, all of its maps and boxes, attention rollout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.explaining.explanation import Kept, Seen, seen_in
from fgdeploy.explaining.looker import Looker
from fgdeploy.photos import Preprocess

if TYPE_CHECKING:
    from fgdeploy.models.network import Network
    from fgdeploy.models.tracing import Traced

NEED = "explaining with the PyTorch model"


class TorchLooker(Looker):
    """A network as its authors run it. way: `tokens`, `maps`, `rollout`, or None for what it has.

    None: maps, boxes and kept patches; rollout where there is none of them.
    """

    def __init__(
        self, network: Network, preprocess: Preprocess, way: str | None, name: str
    ) -> None:
        self.preprocess = preprocess
        self._network = network.published().eval()
        self._way = way
        self._name = name

    def describe(self) -> str:
        """Return in one line what looks."""
        return f"PyTorch model of {self._name}"

    def look(self, frames: npt.NDArray[np.uint8]) -> list[Seen]:
        """Return what is seen in frames, uint8 (B, S, S, 3).

        Raises UsageError where there is nothing of the kind that was asked for.
        """
        from fgdeploy.models import tracing

        if self._way == "rollout":
            return self._rolled(frames)
        with_rows = self._way != "maps"
        found = [
            seen_in(one.extras, one.grid, kept=_kept(one))
            for one in tracing.trace(self._network, frames, with_rows)
        ]
        if self._way == "tokens":
            found = [Seen(one.grid, kept=one.kept) for one in found]
        if any(one.maps or one.boxes or one.kept for one in found):
            return found
        if self._way is not None:
            what = "drops or merges no token" if with_rows else "gives no map and no box"
            raise UsageError(f"--as {self._way}: {self._name} {what}; take --as rollout")
        return self._rolled(frames)

    def _rolled(self, frames: npt.NDArray[np.uint8]) -> list[Seen]:
        from fgdeploy.models import tracing

        return [
            Seen((one.shape[0], one.shape[1]), rollout=one)
            for one in tracing.rollout(self._network, frames)
        ]

    def close(self) -> None:
        """Nothing is held that must be freed."""


def of_bundle(bundle: Bundle, checkpoint: Path | None, way: str | None) -> TorchLooker:
    """Return the model that a bundle was exported from.

    Raises UsageError where its checkpoint is needed and not named, MissingDependency without torch,
    and what `exporter.rebuild` raises, such as ExportError for other weights.
    """
    origin = bundle.manifest.weights["source"]
    if checkpoint is None and origin not in ("pretrained", "random"):
        raise UsageError(
            f"the graph of {bundle.path.name} does not say which patches it used, its PyTorch "
            f"model does: name the checkpoint that it was exported from, --checkpoint {origin}"
        )
    try:
        from fgdeploy.export.exporter import rebuild
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "export", NEED) from None
    network = rebuild(bundle, checkpoint).network
    return TorchLooker(network, bundle.manifest.preprocess, way, bundle.path.name)


def of_training(path: Path, way: str | None, notify: Notify = silent) -> TorchLooker:
    """Return the model that a training left, or a checkpoint holds; without a hash head.

    Raises MissingDependency without torch, and what assembling raises, such as CheckpointError.
    """
    try:
        from fgdeploy.models import assembly
        from fgdeploy.models.heads.base import NoHead
        from fgdeploy.models.network import Network
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "export", NEED) from None
    made = assembly.choose(assembly.NetworkSettings(checkpoint=path), notify)
    network = Network(made.encoder(notify), NoHead(), made.options)
    return TorchLooker(network, made.preprocess, way, path.name)


def _kept(one: Traced) -> tuple[Kept, ...]:
    return tuple(Kept(held.block, held.shares) for held in one.held)
