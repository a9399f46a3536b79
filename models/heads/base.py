"""What every hash head is, and what a network gives it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from fgdeploy.models.simplify import Simplifiable


@dataclass(frozen=True)
class Features:
    """What an encoder makes of B images.

    embedding: [B, D]; extras: further tensors by name, of the method's own: for its head (CLS rows
    of several blocks) or to be outputs of the graph (a box). penalties: scalars that join
    the loss in training; readouts: features [B, D] from within the encoder, for auxiliary heads.
    further: embeddings [B, D] of further looks at the images, which join the loss in training by
    the same head.
    """

    embedding: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    penalties: tuple[Tensor, ...] = ()
    readouts: tuple[Tensor, ...] = ()
    further: tuple[Tensor, ...] = ()

    def looked_further(self) -> list[Features]:
        """Return the features of each further look, for the head."""
        return [Features(one) for one in self.further]


class Head(Simplifiable):
    """From features to a real-valued hash [B, bits], by the name `hash`, and logits where it has.

    parts: first parts of the names of its tensors, by which a checkpoint is told to hold it.
    """

    parts: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def bits(self) -> int:
        """Return the bits of a code."""

    @property
    def classes(self) -> int:
        """Return how many classes it tells, 0 for none."""
        return 0

    def outputs(self) -> tuple[str, ...]:
        """Return the names of what it gives beside the hash, to be had as outputs of the graph."""
        return ("logits",) if self.classes else ()

    @abstractmethod
    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return `hash` [B, bits] and, where it has classes, `logits` [B, C]."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of it: its kind, and how it was made."""

    def files(self) -> dict[str, bytes]:
        """Return the files that a bundle must carry to make this head again."""
        return {}

    def deciding(self) -> dict[str, Tensor]:
        """Return its tensors that decide a code, by name: what the weights' digest is of."""
        return dict(self.state_dict())

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], width: int, bits: int | None, name: str
    ) -> Head | None:
        """Return the trained head in a state dict, None where there is none.

        width: of the embedding; bits: what was asked for, None for what is there; name: of the
        file, for messages. Raises CheckpointError for a head of another form.
        """
        return None

    @classmethod
    def fresh(cls, width: int, classes: int, bits: int) -> Head:
        """Return a new head to be trained, from torch's random state."""
        raise NotImplementedError(f"{cls.__name__} is fitted, not trained")


class NoHead(Head):
    """No head yet: the encoder on its own, whose features a head is fitted on."""

    @property
    def bits(self) -> int:
        """Return 0."""
        return 0

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return its kind."""
        return {"kind": "none"}
