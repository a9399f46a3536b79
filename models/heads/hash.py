"""EET's trained head: a hash on class logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.heads.base import Features, Head
from fgdeploy.models.simplify import Simplification
from fgdeploy.models.weights import checkpoint
from fgdeploy.models.weights.state_dicts import HEADS

FOLD_HASH_HEAD = Simplification(
    "fold-hash-head",
    "nothing non-linear lies between class head and hash head, so they are one product",
    "the logits, where nobody asked for them",
)


class ClassHashHead(Head):
    """hash = head_hash(head(embedding)), on class logits (EET, arXiv 2504.16691, Eq. 20)."""

    simplifications = (FOLD_HASH_HEAD,)
    parts = ("head", "head_hash")

    def __init__(self, width: int, classes: int, bits: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, classes)
        self.head_hash = nn.Linear(classes, bits)

    @property
    def bits(self) -> int:
        """Return the bits of a code."""
        return self.head_hash.out_features

    @property
    def classes(self) -> int:
        """Return how many logits there are."""
        return self.head.out_features

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return the hash [B, bits] and the logits [B, C]."""
        logits = self.head(features.embedding)
        return {"hash": self.head_hash(logits), "logits": logits}

    def facts(self) -> dict[str, Any]:
        """Return its kind and how many classes it was trained for."""
        return {"kind": "trained", "classes": self.classes}

    def folded(self) -> nn.Module:
        """Return the one product that gives the same hash, where that is asked for.

        W = W_hash W_cls and b = W_hash b_cls + b_hash.
        """
        return FoldedHead(self) if self.acts(FOLD_HASH_HEAD) else self

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], width: int, bits: int | None, name: str
    ) -> Head | None:
        """Return the head in a state dict with `head_hash.weight`, None for one without."""
        if "head_hash.weight" not in state:
            if odd := [key for key in state if key.startswith("head_hash")]:
                raise CheckpointError(
                    f"the checkpoint has {odd[0]} but no head_hash.weight, so its hash head is of "
                    "another form; rename the keys, or choose --head itq or --head lsh"
                )
            return None
        keys = ("head.weight", "head.bias", "head_hash.weight", "head_hash.bias")
        if missing := [key for key in keys if key not in state]:
            raise CheckpointError(
                f"{name} lacks {', '.join(missing)}, which the trained head needs"
            )
        outer, inner = state["head_hash.weight"], state["head.weight"]
        if outer.ndim != 2 or inner.ndim != 2:
            raise CheckpointError(
                f"{name}: expected matrices head.weight and head_hash.weight, got "
                f"{tuple(inner.shape)} and {tuple(outer.shape)}"
            )
        if others := [k for k in state if k.split(".")[0] in HEADS and k not in keys]:
            raise CheckpointError(
                f"{name} has {others[0]} beside its class and hash head, which would be left out; "
                "the trained head is head and head_hash alone"
            )
        found, classes = (int(side) for side in outer.shape)
        if inner.shape[0] != classes:
            raise CheckpointError(
                f"{name}: head_hash takes {classes} inputs, but head gives {inner.shape[0]} "
                "classes; the hash head works on the class logits"
            )
        if bits is not None and bits != found:
            raise CheckpointError(
                f"--bits {bits} does not match {name}, whose hash head has {found} bits; "
                "leave --bits out, or fit another head with --head itq"
            )
        check_bits(found)
        head = cls(width, classes, found)
        checkpoint.load_matching(head.state_dict(), {key: state[key] for key in keys}, name)
        return head

    @classmethod
    def fresh(cls, width: int, classes: int, bits: int) -> ClassHashHead:
        """Return a new head as the authors start it: small weights, no bias."""
        head = cls(width, classes, bits)
        for linear in (head.head, head.head_hash):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        return head


class FoldedHead(nn.Module):
    """The hash alone, from one product."""

    def __init__(self, plain: ClassHashHead) -> None:
        super().__init__()
        with torch.no_grad():
            outer, inner = plain.head_hash.weight.double(), plain.head.weight.double()
            self.linear = nn.Linear(inner.shape[1], outer.shape[0]).to(plain.head.weight)
            self.linear.weight.copy_(outer @ inner)
            self.linear.bias.copy_(outer @ plain.head.bias.double() + plain.head_hash.bias.double())

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return the hash [B, bits]."""
        return {"hash": self.linear(features.embedding)}
