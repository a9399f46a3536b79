"""Where a backbone's weights come from: a checkpoint, timm's hub, or a seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.progress import Notify, silent
from fgdeploy.models.backbone import hub, vit
from fgdeploy.models.weights import arguments, checkpoint, name_patterns
from fgdeploy.models.weights.state_dicts import Rename, StateDict
from fgdeploy.models.weights.told import Teller, Told

DEFAULT_SIZE = 224


@dataclass(frozen=True)
class WeightSource:
    """A backbone by timm's name and input size, and its weights: `state`, or by `weights`.

    weights: `pretrained` (timm's hub) or `random`; not read where there is a state. name: what to
    call the source in messages. told: what a file of the method's authors says of itself.
    """

    backbone: str
    size: int
    weights: str
    state: StateDict | None
    name: str
    told: Told | None = None

    def tensors(self) -> StateDict | None:
        """Return the weights by name, None for random ones. Raises CheckpointError."""
        if self.state is not None:
            return self.state
        if self.weights == "pretrained":
            return dict(hub.pretrained(self.backbone, self.size).state_dict())
        return None


def choose(
    default: str,
    rename: Rename,
    backbone: str | None,
    size: int | None,
    path: Path | None,
    weights: str,
    notify: Notify = silent,
    key: str | None = None,
    teller: Teller | None = None,
    patterns: Sequence[str] = (),
) -> WeightSource:
    """Return the source that is meant, telling from the checkpoint `path` what is None.

    default: the backbone where nothing else tells; rename: a method's key map. notify: told what
    was chosen. key: which of the checkpoint's networks (`state_dicts.pick`). teller: reads what the
    checkpoint says of itself, None where a config does. patterns: a user's own, for the names in
    the checkpoint before all else (`name_patterns.applied`). Raises CheckpointError where the
    checkpoint cannot tell, UsageError for what is no pattern.
    """
    if path is None:
        chosen = backbone or default
        usual = DEFAULT_SIZE if backbone is None else _size_in(backbone)
        return WeightSource(chosen, size or usual, weights, None, weights)
    name = path.name
    content = name_patterns.applied(checkpoint.load(path), patterns, name)
    state = checkpoint.renamed(content, name, rename, key, notify)
    told = None if teller is None else teller(arguments.of(content), state, name)
    if told is not None:
        backbone, size = backbone or told.backbone, size or told.size
    if backbone is not None:
        size = size or vit.trained_size(state) or _size_in(backbone)
        return WeightSource(backbone, size, weights, state, name, told)
    guessed, side = vit.guess_backbone(state)
    notify(
        f"backbone {guessed} at {side} pixels, told from the checkpoint's shapes, with its "
        "mean and std; name --backbone if it is another ViT of these shapes"
    )
    return WeightSource(guessed, size or side, weights, state, name, told)


def _size_in(backbone: str) -> int:
    """Return the input size in a timm name such as vit_small_patch14_reg4_dinov2 or ..._384."""
    match = re.search(r"_(\d{3})(?:\.|_|$)", backbone)
    if match:
        return int(match[1])
    patch = re.search(r"patch(\d+)", backbone)
    side = int(patch[1]) if patch else 16
    return DEFAULT_SIZE // side * side
