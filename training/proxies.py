"""DVA's training: each class has a point to be near to, for whole photos and for objects alone.

    L = CE(18 cos(z, P_all), y) + CE(18 cos(z_object, P_obj), y)
        + 3 CE(18 cos(z_image, stopgrad P_obj), y)

'Fine-grained Image Retrieval via Dual-Vision Adaptation', Eq. 3 to 5, with the scale of ProxyNCA++:
vectors of length 3 at squared distance, 9 (2 - 2 cos), which is 18 cos but for a constant. The
first term is over photos and backgrounds, which are one class more. A hash head learns beside it,
on features that carry no gradient back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.models.heads.base import Features
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods.base import Recipe
from fgdeploy.models.network import Network
from fgdeploy.training import linear_probe, losses
from fgdeploy.training.data import IMAGE
from fgdeploy.training.fast import SCALE, start_heads
from fgdeploy.training.looking import look
from fgdeploy.training.object_views import BACKGROUND, OBJECT, has_background
from fgdeploy.training.objective import STUDENT, Batch, Objective, Setup
from fgdeploy.training.target_codes import Signs, class_codes

SHARPNESS = 18.0
TRANSFER_WEIGHT = 3.0
# Rates over the recipe's of 0.1: 400 for proxies, as ProxyNCA++, and 0.001 for the heads, whose
# Adam has its usual eps.
PROXY_RATE, HEAD_RATE, HEAD_EPS = 4000.0, 0.01, 1e-8


class ProxyObjective(Objective):
    """Draw views of photos to points of their classes; the deployed network sees whole photos.

    Parts that can be left out: `background` (the views without object), `transfer` (from objects
    to whole photos), `start` (points and heads from the features, else random).
    """

    objects: Tensor
    backgrounds: Tensor
    codes: Tensor

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.student = setup.make(True)
        head, width = self.student.head, self.student.encoder.width
        if not isinstance(head, ClassHashHead):
            raise TypeError(f"expected a head on class logits, got {type(head).__name__}")
        self._labels, self._without = setup.labels, setup.without
        embeddings = look(self.student, setup.embed)
        codes = class_codes(embeddings, setup.labels, setup.bits, setup.seed)
        self.register_buffer("codes", torch.from_numpy(codes.astype(np.float32)))
        boxes = setup.boxes
        for name, given in (
            ("objects", [box is not None for box in boxes]),
            ("backgrounds", [has_background(box) for box in boxes]),
        ):
            self.register_buffer(name, torch.tensor(given), persistent=False)
        generator = torch.Generator().manual_seed(setup.seed)
        self.proxies_obj = nn.Parameter(torch.randn(setup.classes, width, generator=generator) / 8)
        self.proxies_all = nn.Parameter(
            torch.randn(setup.classes + 1, width, generator=generator) / 8
        )
        if "start" not in setup.without:
            probe = linear_probe.fit(embeddings, setup.labels, setup.classes)
            start_heads(head, probe, codes)
            self._start(embeddings, setup.labels)

    def _start(self, embeddings: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
        """Put the point of a class at the mean direction of its photos, as long as a random one."""
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)
        sums = np.zeros((len(self.proxies_obj), units.shape[1]))
        np.add.at(sums, labels, units)
        means = F.normalize(torch.from_numpy(sums), dim=1) * units.shape[1] ** 0.5 / 8
        with torch.no_grad():
            self.proxies_obj.copy_(means)
            self.proxies_all[:-1].copy_(means)

    @property
    def targets(self) -> Signs:
        """Return the code of each training image, that of its class, (n, bits)."""
        return self.codes.cpu().numpy().astype(np.int8)[self._labels]

    def networks(self) -> dict[str, Network]:
        """Return the student; this recipe has no teacher."""
        return {STUDENT: self.student}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss. One pass runs all views of the batch."""
        labels, count = batch.labels, len(batch.labels)
        with_object = self.objects[batch.rows].nonzero().squeeze(1)
        behind = self.backgrounds[batch.rows].nonzero().squeeze(1)
        if "background" in self._without:
            behind = behind[:0]
        views = [
            batch.views[IMAGE],
            batch.views[OBJECT][with_object],
            batch.views[BACKGROUND][behind],
        ]
        found = self.student(torch.cat(views)).embedding.float()
        whole, objects, backgrounds = found.split([count, len(with_object), len(behind)])
        with torch.autocast(found.device.type, enabled=False):
            others = labels.new_full((len(behind),), len(self.proxies_obj))
            terms = {
                "proxy": near(
                    torch.cat([whole, backgrounds]), self.proxies_all, torch.cat([labels, others])
                )
            }
            if len(with_object):
                terms["object"] = near(objects, self.proxies_obj, labels[with_object])
            if "transfer" not in self._without:
                given = near(whole, self.proxies_obj.detach(), labels)
                terms["transfer"] = TRANSFER_WEIGHT * given
        hashes = self.student.hashes(Features(whole.detach()))["hash"]
        terms["code"] = losses.code_cosine(hashes, labels, self.codes, SCALE)
        return terms

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return the groups of the student, its heads and the points at rates of their own."""
        held = {id(one) for one in self.student.head.parameters()}
        groups = super().parameter_groups(recipe)
        for group in groups:
            if any(id(one) in held for one in group["params"]):
                group.update(lr_scale=HEAD_RATE, eps=HEAD_EPS)
        points = {"params": [self.proxies_obj, self.proxies_all], "weight_decay": 0.0}
        return [*groups, {**points, "lr_scale": PROXY_RATE}]


def near(rows: Tensor, proxies: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of 18 cos(row, proxy) over the proxies.

    rows: (B, D); proxies: (C, D); labels: (B,) of proxy numbers.
    """
    cosines = F.normalize(rows, dim=1) @ F.normalize(proxies, dim=1).T
    return losses.classification(SHARPNESS * cosines, labels)
