"""Token scores by hand, and the choice of the best."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Attended
from fgdeploy.models.reduce.scores import Select, token_scores
from tests.models.samples import randomised


def test_scores_by_hand() -> None:
    # One image, two heads, CLS and two patches; head sizes of one, so norms are absolute values.
    attention = torch.tensor([[[0.2, 0.5, 0.3], [0.1, 0.4, 0.5]]])
    out = torch.tensor([[[[9.0], [3.0], [-1.0]], [[9.0], [1.0], [1.0]]]])
    expected = [[0.5 * 3 / 4 + 0.4 * 1 / 4, 0.3 * 1 / 2 + 0.5 * 1 / 2]]
    assert torch.allclose(token_scores(attention, out, 1), torch.tensor(expected))


def test_rows_that_are_no_patches_get_no_score() -> None:
    generator = torch.Generator().manual_seed(0)
    attention, out = (torch.rand(shape, generator=generator) for shape in ((2, 3, 9), (2, 3, 9, 4)))
    whole = token_scores(attention, out, 0)
    assert whole.shape == (2, 9)
    assert torch.equal(token_scores(attention, out, 2), whole[:, 2:])
    assert torch.equal(token_scores(attention, out, 2, 3), whole[:, 2:6])


def _attended() -> Attended:
    net = randomised("test_vit", 64)
    x = torch.randn(3, 20, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return blocks.attend(net.blocks[1], x)


@pytest.mark.parametrize(("prefix", "suffix"), [(1, 0), (2, 3)])
def test_the_best_are_chosen(prefix: int, suffix: int) -> None:
    seen = _attended()
    scores = token_scores(seen.full_attention()[:, :, 0], seen.out_by_head, prefix, suffix)
    rows = Select(5, token_scores)(seen, prefix, suffix)
    assert rows.shape == (3, 5)
    for chosen, row in zip(rows.tolist(), scores.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda n: -row[n])[:5]
        assert sorted(chosen) == sorted(best)


def test_the_score_is_the_method_s() -> None:
    def last(cls_attention: Tensor, out: Tensor, prefix: int, suffix: int) -> Tensor:
        count = out.shape[2] - prefix - suffix
        return torch.arange(float(count)).expand(out.shape[0], -1)

    rows = Select(2, last)(_attended(), 1, 0)
    assert rows.sort(dim=1).values.tolist() == [[17, 18]] * 3


def test_the_cls_row_of_attention_is_enough() -> None:
    """The same scores to rounding, from one row of attention or from all of it."""
    seen = _attended()
    given: list[Tensor] = []

    def note(cls_attention: Tensor, out: Tensor, prefix: int, suffix: int) -> Tensor:
        given.append(cls_attention)
        return token_scores(cls_attention, out, prefix, suffix)

    select = Select(5, note)
    assert select.active == {"cls-row"}
    one = select(seen, 1, 0)
    select.active = frozenset()
    two = select(seen, 1, 0)
    assert given[0].shape == given[1].shape == (3, 4, 20) or given[0].shape == given[1].shape
    assert (given[0] - given[1]).abs().max() < 1e-14
    assert torch.equal(one.sort(dim=1).values, two.sort(dim=1).values)
