"""The terms of the objectives, one small function each; every one is a mean over the batch.

Shapes: hashes and target codes (B, bits), logits (B, C), labels (B,) of class numbers. The paper is
EET's, arXiv 2504.16691; where it and the authors' code differ, the code's form is taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def hash_regression(hashes: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared distance of hashes to target codes.

    hashes come from the class logits (Eq. 20) and are unbounded; targets, of Eq. 13 to 16, are -1
    or +1; the mean is over bits too.
    """
    return F.mse_loss(hashes, targets)


def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross entropy of class logits, with label smoothing in 0..1."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def knowledge_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Return EET's discriminative knowledge transfer: mean of 1 - cos(h, h_teacher).

    No gradient reaches the teacher.
    """
    return (1 - F.cosine_similarity(student, teacher.detach(), dim=1)).mean()


def code_cosine(hashes: Tensor, labels: Tensor, class_codes: Tensor, scale: float) -> Tensor:
    """Return the cross entropy over classes of scale * cos(h, code of class).

    One loss for telling classes apart and for hashes near their binary codes (Hoe et al., "One
    Loss for All", NeurIPS 2021, Eq. 9, without its margin). class_codes: (C, bits) in {-1, +1}.
    """
    directions = F.normalize(class_codes, dim=1)
    return F.cross_entropy(scale * F.normalize(hashes, dim=1) @ directions.T, labels)


def bits_reached(hashes: Tensor, targets: Tensor) -> Tensor:
    """Return the share, 0..1, of bits of hashes that equal those of target codes in {-1, +1}."""
    return ((hashes.detach() > 0) == (targets > 0)).float().mean()


def total(terms: dict[str, Tensor]) -> Tensor:
    """Return the sum of weighted terms."""
    return torch.stack(list(terms.values())).sum()
