"""A pruned student beside its dense teacher, as EET trains (arXiv 2504.16691; WhiteJiang/EET).

    L_student = MSE(h, b) + 0.1 (CE(y) + CE(y')) + mean(1 - cos(h, h_teacher))
    L_teacher = CE(y_t) + MSE(h_t, b)

b is the target code of the image, ' marks the image whose most salient patches are hidden. Student
and teacher share no weights and no gradient, so one sum and one optimiser give both their steps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.models.heads.base import Features
from fgdeploy.models.network import Network
from fgdeploy.training import losses
from fgdeploy.training.guidance import Saliency, hide_salient
from fgdeploy.training.objective import STUDENT, TEACHER, Batch, Objective, Setup
from fgdeploy.training.target_codes import label_codes

CLASS_WEIGHT = 0.1
TRANSFER_WEIGHT = 1.0


class Distillation(Objective):
    """Train a pruned student beside its teacher, or under a frozen one."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._transfer = "dkt" not in setup.without
        self._guide = "drg" not in setup.without
        self._patch = setup.patch
        self._transposed = bool(getattr(setup.options, "transposed_mask", False))
        self.student = setup.make("ctp" not in setup.without)
        self._frozen = setup.teacher is not None
        self.teacher: Network | None = None
        if self._transfer or self._guide:
            self.teacher = setup.teacher or setup.make(False)
            if self._frozen:
                self.teacher.requires_grad_(False)
        targets = setup.teacher_targets
        if targets is None:
            targets = label_codes(setup.labels, setup.bits)
        self.register_buffer("codes", torch.from_numpy(targets.copy()))

    @property
    def targets(self) -> npt.NDArray[np.int8]:
        """Return the code of each training image, (n, bits)."""
        codes: Tensor = self.codes  # type: ignore[assignment]
        return codes.cpu().numpy()

    def networks(self) -> dict[str, Network]:
        """Return the student, and the teacher where it is trained along."""
        nets = {STUDENT: self.student}
        if self.teacher is not None and not self._frozen:
            nets[TEACHER] = self.teacher
        return nets

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of both losses."""
        codes: Tensor = self.codes[batch.rows].float()  # type: ignore[index]
        hashes, logits = _answer(self.student, self.student(batch.images))
        terms = {
            "hash": losses.hash_regression(hashes, codes),
            "class": CLASS_WEIGHT * losses.classification(logits, batch.labels),
        }
        if self.teacher is None:
            return terms
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            seen = Saliency(self.teacher)
            features = self.teacher(batch.images, [seen])
            teacher_hashes, teacher_logits = _answer(self.teacher, features)
        if self._guide:
            hidden = hide_salient(
                batch.images, seen.scores.detach(), self._patch, transposed=self._transposed
            )
            guided = losses.classification(
                _answer(self.student, self.student(hidden))[1], batch.labels
            )
            terms["guidance"] = CLASS_WEIGHT * guided
        if self._transfer:
            transfer = losses.knowledge_transfer(hashes, teacher_hashes)
            terms["transfer"] = TRANSFER_WEIGHT * transfer
        if not self._frozen:
            terms["teacher_hash"] = losses.hash_regression(teacher_hashes, codes)
            terms["teacher_class"] = losses.classification(teacher_logits, batch.labels)
        return terms


def _answer(net: Network, features: Features) -> tuple[Tensor, Tensor]:
    found = net.hashes(features)
    return found["hash"], found["logits"]
