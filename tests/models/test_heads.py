"""Hash heads."""

from __future__ import annotations

import torch

from fgdeploy.models.heads import ClassHashHead, ProjectionHead


def test_folded_class_head_is_exact() -> None:
    head = ClassHashHead(24, 10, 13).double().requires_grad_(False)
    embedding = torch.randn(5, 24, dtype=torch.float64)
    hashes, logits = head(embedding)
    assert logits.shape == (5, 10)
    by_hand = (embedding @ head.head.weight.T + head.head.bias) @ head.head_hash.weight.T
    assert torch.allclose(hashes, by_hand + head.head_hash.bias, rtol=0, atol=1e-13)
    assert torch.allclose(head.folded()(embedding), hashes, rtol=0, atol=1e-13)


def test_projection_head_works_on_directions() -> None:
    weight, bias = torch.randn(9, 6), torch.randn(9)
    head = ProjectionHead(weight, bias)
    embedding = torch.randn(4, 6)
    expected = embedding / embedding.norm(dim=1, keepdim=True) @ weight.T + bias
    assert torch.allclose(head(embedding), expected, atol=1e-6)
    assert torch.allclose(head(7 * embedding), expected, atol=1e-6)
    assert torch.isfinite(head(torch.zeros(1, 6))).all()
