"""A network in training: an encoder of some method with its hash head, as it will be exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgdeploy.models.heads import ClassHashHead
from fgdeploy.models.staged import StagedViT
from fgdeploy.models.stages import Stage


class HashNet(nn.Module):
    """An encoder and a hash head on class logits; its state dict has timm's names when saved."""

    def __init__(
        self, encoder: StagedViT, stages: tuple[Stage, ...], classes: int, bits: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.stages = stages
        self.heads = ClassHashHead(int(encoder.vit.embed_dim), classes, bits)
        for linear in (self.heads.head, self.heads.head_hash):  # as the authors start
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (hash [B, bits], logits [B, C]) of normalised images [B, 3, S, S]."""
        return self.hash(self.encoder(images))

    def hash(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return (hash, logits) of embeddings [B, D], in float32 under autocast too.

        The sign of a hash is its code, so it is not left to half precision.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            hashes, logits = self.heads(embedding.float())
        return hashes, logits

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights under the names that checkpoints have: timm's, head, head_hash."""
        backbone = {
            key: value
            for key, value in self.encoder.vit.state_dict().items()
            if key.split(".")[0] not in ("head", "head_dist")
        }
        return {**backbone, **self.heads.state_dict()}
