"""What a checkpoint says of its network: how an importer tells an assembly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Told:
    """What a file without a config of ours says of itself; None is not told.

    options: values by the name of a method's option; fixed: those of them that the weights hold
    to; open: names of options that matter and that the file does not tell. backbone: timm's name;
    size, resize: pixels of a side, and of the whole square photo that it is cut from; colours: mean
    and std per channel, 0..1; square: whether both sides of a photo are scaled to `resize`.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    open: tuple[str, ...] = ()
    backbone: str | None = None
    size: int | None = None
    resize: int | None = None
    colours: tuple[Channels, Channels] | None = None
    square: bool | None = None


# (arguments kept beside the tensors, renamed tensors, the file's name) -> what is told, None where
# the file is of no known author. Raises CheckpointError for another method's.
Teller = Callable[[Mapping[str, Any], Mapping[str, Tensor], str], Told | None]
# (arguments, tensors under the names in the file) -> whether the file is surely of one method.
Claim = Callable[[Mapping[str, Any], Mapping[str, Tensor]], bool]
