"""A published training of a class head, with a hash head that learns beside it.

    L = CE(logits, y) + penalties;   L_hash = CE(8 cos(hash(stopgrad logits), code of class), y)

with the cross entropy of every further look at the photo where a method has some. The authors
(arkel23/CLCA) train no hash. Here the hash head reads logits that carry no gradient back, so what
is published takes the very steps that it would take alone.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from fgdeploy.models.heads.aggregate import Aggregate
from fgdeploy.models.heads.base import Features
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods.base import Recipe
from fgdeploy.models.network import Network
from fgdeploy.training import losses
from fgdeploy.training.auxiliary import AuxiliaryHeads
from fgdeploy.training.looking import look
from fgdeploy.training.objective import STUDENT, Batch, Objective, Setup
from fgdeploy.training.target_codes import Signs, class_codes

SCALE = 8.0  # as in the recipe `fast`
_SPARED = frozenset({"pos_embed", "cls_token", "dist_token", "clr"})


class ClassFirst(Objective):
    """Train a network to tell classes, and a hash head on what it tells.

    `ctp` may be left out: no token reduction. smoothing: of the labels of the class head, 0..1.
    """

    smoothing: ClassVar[float] = 0.0

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.student = setup.make("ctp" not in setup.without)
        head = self.student.head
        if not isinstance(head, ClassHashHead):
            raise TypeError(f"expected a head on class logits, got {type(head).__name__}")
        self._labels = setup.labels
        self.auxiliary = AuxiliaryHeads(self.student, setup.classes, setup.seed)
        held = {name: value.clone() for name, value in self.student.state_dict().items()}
        codes = class_codes(look(self.student, setup.embed), setup.labels, setup.bits, setup.seed)
        self.student.load_state_dict(held)  # a look changes no published statistics
        self.register_buffer("codes", torch.from_numpy(codes.astype(np.float32)))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(setup.seed)
            self.start(head.head)
            head.head_hash.weight.copy_(torch.from_numpy(codes.T * 0.3))
            head.head_hash.bias.zero_()

    @property
    def targets(self) -> Signs:
        """Return the code of each training image, that of its class, (n, bits)."""
        codes: Tensor = self.codes  # type: ignore[assignment]
        return codes.cpu().numpy().astype(np.int8)[self._labels]

    def networks(self) -> dict[str, Network]:
        """Return the student; this recipe has no teacher."""
        return {STUDENT: self.student}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss."""
        codes: Tensor = self.codes  # type: ignore[assignment]
        features = self.student(batch.images)
        logits = self.student.hashes(features)["logits"]
        head = cast(ClassHashHead, self.student.head)
        with torch.autocast(logits.device.type, enabled=False):
            hashes = head.head_hash(logits.detach())
        return {
            "class": losses.classification(logits, batch.labels, self.smoothing),
            "code": losses.code_cosine(hashes, batch.labels, codes, SCALE),
            **self._further(features, batch.labels),
            **self.auxiliary(features, batch.labels),
        }

    def start(self, classes: nn.Linear) -> None:
        """Start the class head and a new aggregate as PyTorch does, and the authors."""
        classes.reset_parameters()
        for part in self.student.modules():
            if isinstance(part, Aggregate) and not part.norm_in.num_batches_tracked:
                part.conv.reset_parameters()

    def clipped(self) -> list[list[nn.Parameter]]:
        """Return the hash head apart, so that its gradient shortens no published step."""
        head = cast(ClassHashHead, self.student.head)
        beside = list(head.head_hash.parameters())
        held = {id(one) for one in beside}
        return [[one for one in self.parameters() if id(one) not in held], beside]

    def _further(self, features: Features, labels: Tensor) -> dict[str, Tensor]:
        """Return the cross entropy of further looks at the same photos."""
        looks = [self.student.hashes(one)["logits"] for one in features.looked_further()]
        found = [losses.classification(logits, labels, self.smoothing) for logits in looks]
        return {"further": torch.stack(found).sum()} if found else {}

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return two groups, all at one rate: biases, vectors and single tokens do not decay."""
        groups: list[dict[str, Any]] = [
            {"params": [], "weight_decay": decay, "lr_scale": recipe.head_rate}
            for decay in (recipe.weight_decay, 0.0)
        ]
        named = {**self.student.state(), **dict(self.auxiliary.named_parameters())}
        for name, value in named.items():
            if isinstance(value, nn.Parameter):
                spared = value.ndim < 2 or name.endswith(".bias") or name in _SPARED
                groups[spared]["params"].append(value)
        return groups
