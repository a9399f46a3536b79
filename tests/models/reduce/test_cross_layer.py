"""The cache against the authors' order of events, on rows that tell where they come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgdeploy.core.errors import StageError
from fgdeploy.models.reduce.cross_layer import Cached, Carriers, cached
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import LastStep, Step
from tests.checks import refused

DEPTH, REDUCING = 8, (3, 5)


class Shift(Step):
    """Add one to every row; drop the last `less` rows."""

    def __init__(self, less: int = 0) -> None:
        super().__init__()
        self.less = less

    def forward(self, block: Any, tokens: Tokens) -> Tokens:
        return tokens.having(tokens.x[:, : tokens.count - self.less] + 1)


def _expected(x: Tensor, carriers: Carriers, at_last: bool, less: int) -> Tensor:
    """The authors' loop over all blocks but the last, blocks from 0, word by word from 5.1."""
    reducing = [number - 1 for number in REDUCING]
    recovery = reducing + ([DEPTH - 2] if at_last else [])
    pool_end = x.shape[1] - (0 if carriers.pool_clr else carriers.clr)
    cache: list[Tensor] = []
    for i in range(DEPTH - 1):
        x = x[:, : x.shape[1] - (less if i in reducing else 0)] + 1
        if i in recovery:
            pool_end = x.shape[1]
            x = torch.cat([x, *cache], dim=1)
            cache = []
        if i < recovery[-1]:
            if carriers.gap:
                start = 0 if carriers.pool_cls else 1
                cache.append(x[:, start:pool_end].mean(dim=1, keepdim=True))
            if carriers.clr:
                cache.append(x[:, x.shape[1] - carriers.clr :])
    return x


@pytest.mark.parametrize("at_last", [True, False])
@pytest.mark.parametrize(
    "carriers",
    [
        Carriers(),
        Carriers(clr=0),
        Carriers(gap=False),
        Carriers(clr=2),
        Carriers(pool_cls=True),
        Carriers(pool_clr=True),
    ],
)
def test_what_comes_back_and_when(carriers: Carriers, at_last: bool) -> None:
    start = torch.randn(2, 9 + carriers.clr, 4, generator=torch.Generator().manual_seed(0))
    steps: dict[int, Step] = {n: Shift(2 if n in REDUCING else 0) for n in range(1, DEPTH)}
    steps[DEPTH] = LastStep()
    found = cached(steps, REDUCING, carriers, at_last)
    tokens = Tokens(start.double(), suffix=carriers.clr)
    for number in range(1, DEPTH):
        tokens = found[number](nn.Identity(), tokens)
    expected = _expected(start.double(), carriers, at_last, 2)
    assert torch.allclose(tokens.x, expected, atol=1e-12)
    assert tokens.cache == ()
    assert isinstance(found[DEPTH], LastStep)


def test_the_mean_of_cls_alone_is_cls() -> None:
    tokens = Tokens(torch.randn(2, 1, 3))
    after = Cached(Shift(), Carriers(clr=0), recovers=False, keeps=True, behind=0)(
        nn.Identity(), tokens
    )
    assert torch.equal(after.cache[0], tokens.x + 1)


def test_sizes_and_masks_grow_with_what_comes_back() -> None:
    x = torch.arange(12.0).reshape(1, 4, 3)
    size, mask = torch.tensor([[1.0, 2, 3, 1]]), torch.tensor([[True, True, False, True]])
    tokens = Tokens(x, size=size, mask=mask, cache=(x[:, :2],))
    step = Cached(Shift(), Carriers(clr=0), recovers=True, keeps=True, behind=2)
    after = step(nn.Identity(), tokens)
    assert after.size is not None and after.size.tolist() == [[1, 2, 3, 1, 1, 1]]
    assert after.mask is not None and after.mask.tolist() == [[True, True, False, True, True, True]]
    assert after.suffix == 2
    # The mean of rows 1 and 3: row 2 does not count.
    assert torch.equal(after.cache[0], (x[:, 1:2] + x[:, 3:4]) / 2 + 1)


def test_rows_that_come_back_count_for_a_predictor_in_training_alone() -> None:
    x = torch.ones(1, 3, 2)
    step = Cached(Shift(), Carriers(clr=0), recovers=True, keeps=False, behind=0)
    tokens = Tokens(x, policy=torch.tensor([[1.0, 0, 1]]), cache=(x[:, :1],))
    for training, last in ((True, 1), (False, 0)):
        policy = step.train(training)(nn.Identity(), tokens).policy
        assert policy is not None and policy.tolist() == [[1, 0, 1, last]]


def test_nothing_comes_back_behind_the_first_block() -> None:
    x = torch.randn(2, 5, 3)
    tokens = Cached(Shift(), Carriers(), recovers=True, keeps=True, behind=0)(
        nn.Identity(), Tokens(x)
    )
    assert torch.equal(tokens.x, x + 1)
    assert len(tokens.cache) == 2


def test_more_clr_tokens_than_rows_left_are_refused() -> None:
    step = Cached(Shift(7), Carriers(clr=3), recovers=True, keeps=True, behind=0)
    with refused(StageError, "^clr=3: only 2 rows left before any come back; use fewer"):
        step(nn.Identity(), Tokens(torch.zeros(1, 9, 4), 1))
    enough = Cached(Shift(6), Carriers(clr=3), recovers=True, keeps=True, behind=0)
    assert len(enough(nn.Identity(), Tokens(torch.zeros(1, 9, 4), 1)).cache) == 2
