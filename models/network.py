"""A whole network: encoder and hash head, from pixels to hashes, in training and deployed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone.embedding import Pixels
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features, Head
from fgdeploy.models.heads.hash import FOLD_HASH_HEAD
from fgdeploy.models.simplify import Simplification, declared, simplified
from fgdeploy.models.walk import Observer
from fgdeploy.models.weights import checkpoint


class Network(nn.Module):
    """An encoder with its head. `forward` gives features, `hashes` what the head makes of them.

    options: the method's, that the encoder was built with.
    """

    def __init__(self, encoder: Encoder, head: Head, options: Any = None) -> None:
        super().__init__()
        self.options = options
        self.pixels: nn.Module = Pixels(encoder.embed.norm)
        self.encoder = encoder
        self.head = head
        self._bits = head.bits

    def forward(self, pixels: Tensor, observers: Sequence[Observer] = ()) -> Features:
        """Return the features of normalised pixels [B, 3, S, S]."""
        features: Features = self.encoder(pixels, observers)
        return features

    def hashes(self, features: Features) -> dict[str, Tensor]:
        """Return `hash` [B, bits] and perhaps `logits` [B, C], in float32 under autocast too.

        The sign of a hash is its code, so it is not left to half precision.
        """
        given = dataclasses.replace(
            features,
            embedding=_whole(features.embedding),
            extras={name: _whole(value) for name, value in features.extras.items()},
        )
        with torch.autocast(features.embedding.device.type, enabled=False):
            found: dict[str, Tensor] = self.head(given)
        return found

    @property
    def head_bits(self) -> int:
        """Return the bits of a code, of a folded head too."""
        return self._bits

    def state(self) -> dict[str, Tensor]:
        """Return every tensor of the network under the name that checkpoints have for it.

        The one list of what is trained, saved, loaded and fingerprinted: timm's names for the
        backbone, `steps.N.…` for steps, the head's own. Each tensor once, not copied.
        """
        found = {**self.encoder.state(), **self.head.state_dict(keep_vars=True)}
        if len(found) < len(self.encoder.state()) + len(self.head.state_dict()):
            raise ValueError("encoder and head have tensors of one name")
        return found

    def load(self, given: Mapping[str, Tensor], name: str) -> None:
        """Copy the tensors of `state` from `given`. Raises CheckpointError if they do not fit."""
        checkpoint.load_matching(self.state(), given, name)

    def fingerprint(self) -> str:
        """Return the sha256 of all weights that decide a code, the encoder's before the head's."""
        return checkpoint.digest(self.encoder.deciding(), self.head.deciding())

    def simplifications(self) -> dict[str, Simplification]:
        """Return the exact simplifications that its modules declare, by name."""
        return declared(self)

    def published(self) -> Network:
        """Return the network on the same weights as its authors run it: nothing simplified."""
        return self._with(frozenset())

    def deployed(self, without: frozenset[str] = frozenset(), logits: bool = False) -> Network:
        """Return the network on the same weights with every exact simplification but `without`.

        logits: they are wanted, so the head is not folded. Later changes of the weights may not
        show in what is folded.
        """
        left = without | ({FOLD_HASH_HEAD.name} if logits else set())
        return self._with(frozenset(self.simplifications()) - left)

    def _with(self, active: frozenset[str]) -> Network:
        return cast(Network, simplified(self, active))


def _whole(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
