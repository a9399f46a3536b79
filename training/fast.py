"""The recipe for small budgets: heads that start from the features, one cosine loss on codes.

It needs nothing of a method but its network. Before the first step the network looks at every
training image once; class codes and both heads follow in closed form, so training starts from a
hash that ranks already. Then the whole network is fine-tuned with AdamW, lower blocks slower.
What each choice is worth is measured in benchmarks/README.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.models.heads.base import Features
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods.base import Recipe
from fgdeploy.models.network import Network
from fgdeploy.training import linear_probe, losses
from fgdeploy.training.auxiliary import AuxiliaryHeads
from fgdeploy.training.linear_probe import Probe
from fgdeploy.training.looking import look
from fgdeploy.training.objective import STUDENT, Batch, Objective, Setup
from fgdeploy.training.sizing import SetFacts
from fgdeploy.training.target_codes import Signs, class_codes, label_codes

# A low scale keeps pulling hashes towards their codes long after the class is right; that is what
# makes the codes of two photos of a class agree, and so the ranking among photos good.
SCALE = 8.0
TRANSFER_WEIGHT = 1.0


class FastObjective(Objective):
    """Draw hashes to class codes by their cosine; learn from a frozen teacher where one is given.

    Parts that can be left out, for comparison: `start` (heads from the features, else random),
    `codes` (codes from the features, else from labels alone), `ctp` (pruning).
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.student = setup.make("ctp" not in setup.without)
        self.teacher = setup.teacher
        if self.teacher is not None:
            self.teacher.requires_grad_(False)
        self.auxiliary = AuxiliaryHeads(self.student, setup.classes, setup.seed)
        embeddings = look(self.student, setup.embed)
        by_class = self._class_codes(setup, embeddings)
        self._labels = setup.labels
        self.register_buffer("codes", torch.from_numpy(by_class.astype(np.float32)))
        head = self.student.head
        probe = linear_probe.fit(embeddings, setup.labels, setup.classes)
        self._facts = SetFacts(len(setup.labels), setup.classes, probe.told)
        if "start" not in setup.without and isinstance(head, ClassHashHead):
            start_heads(head, probe, by_class)

    @staticmethod
    def _class_codes(setup: Setup, embeddings: npt.NDArray[np.float32]) -> Signs:
        if setup.teacher_targets is not None or "codes" in setup.without:
            rows = setup.teacher_targets
            rows = label_codes(setup.labels, setup.bits) if rows is None else rows
            # a class may have a few odd codes; the majority of each bit stands for it
            sums = np.zeros((setup.classes, setup.bits))
            np.add.at(sums, setup.labels, rows)
            return np.where(sums >= 0, 1, -1).astype(np.int8)
        return class_codes(embeddings, setup.labels, setup.bits, setup.seed)

    @property
    def targets(self) -> Signs:
        """Return the code of each training image, that of its class, (n, bits)."""
        codes: Tensor = self.codes  # type: ignore[assignment]
        return codes.cpu().numpy().astype(np.int8)[self._labels]

    @property
    def facts(self) -> SetFacts:
        """Return what the first look says of the set."""
        return self._facts

    def networks(self) -> dict[str, Network]:
        """Return the student; a teacher is given or there is none."""
        return {STUDENT: self.student}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss."""
        codes: Tensor = self.codes  # type: ignore[assignment]
        features = self.student(batch.images)
        hashes = self.student.hashes(features)["hash"]
        terms = {"code": losses.code_cosine(hashes, batch.labels, codes, SCALE)}
        self.reached = losses.bits_reached(hashes, codes[batch.labels])
        terms |= self._further(features, batch.labels)
        terms |= self.auxiliary(features, batch.labels)
        if self.teacher is not None:
            with torch.no_grad():
                teacher_hashes = self.teacher.hashes(self.teacher(batch.images))["hash"]
            transfer = losses.knowledge_transfer(hashes, teacher_hashes)
            terms["transfer"] = TRANSFER_WEIGHT * transfer
        return terms

    def _further(self, features: Features, labels: Tensor) -> dict[str, Tensor]:
        """Return the term of further looks at the same photos, by the same codes."""
        codes: Tensor = self.codes  # type: ignore[assignment]
        looks = [self.student.hashes(one)["hash"] for one in features.looked_further()]
        found = [losses.code_cosine(hashes, labels, codes, SCALE) for hashes in looks]
        return {"further": torch.stack(found).sum()} if found else {}

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return the groups of the student, and one of the auxiliary heads where there are any."""
        return super().parameter_groups(recipe) + self.auxiliary.groups(recipe)

    def train(self, mode: bool = True) -> FastObjective:
        """Switch all but the teacher, which is as deployed."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self


def start_heads(head: ClassHashHead, probe: Probe, codes: Signs, spread: float = 10.0) -> None:
    """Set the class head to a linear probe of the features, the hash head to the class codes.

    Their product is then three times the ridge regression of the features on the codes (a length
    that no code shows). codes: (C, bits). spread scales the logits so that a softmax of them is
    neither flat nor hard.
    """
    with torch.no_grad():
        head.head.weight.copy_(torch.from_numpy(probe.weights * spread))
        head.head.bias.copy_(torch.from_numpy(probe.bias * spread))
        head.head_hash.weight.copy_(torch.from_numpy(codes.T * (3.0 / spread)))
        head.head_hash.bias.zero_()
