"""Copies of a network that compute the same in another way, on the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fgdeploy.models.simplify import Simplifiable, Simplification, declared, simplified
from tests.models.samples import pruned, randomised

HALVE = Simplification("halve", "half of twice is once", "a product")
SKIP = Simplification("skip", "nothing is added", "an addition")


class _Twice(Simplifiable):
    """2 x w / 2, or x w."""

    simplifications = (HALVE, SKIP)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0]))
        self.register_buffer("offset", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the same in any way."""
        product = x * self.weight if self.acts(HALVE) else 2 * x * self.weight / 2
        return product if self.acts(SKIP) else product + self.offset


class _Folds(Simplifiable):
    """One product more, or folded into a module of its own."""

    simplifications = (HALVE,)

    def __init__(self, inner: _Twice) -> None:
        super().__init__()
        self.inner = inner
        self.nothing: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Run the inner module."""
        return self.inner(x)  # type: ignore[no-any-return]

    def folded(self) -> nn.Module:
        """Return the inner module."""
        return nn.Sequential(self.inner) if self.acts(HALVE) else self


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = _Twice()
        self.one, self.two = _Folds(shared), shared
        self.list = nn.ModuleList([shared, _Twice()])

    def forward(self, x: Tensor) -> Tensor:
        """Run both."""
        return self.two(self.one(x))  # type: ignore[no-any-return]


def test_all_are_on_from_the_start_and_told_by_name() -> None:
    net = _Net()
    assert list(declared(net)) == ["halve", "skip"]
    assert declared(net)["skip"] is SKIP
    assert net.two.acts(HALVE) and net.two.acts(SKIP) and net.one.acts(HALVE)
    assert not net.one.acts(SKIP)  # none of its own


@pytest.mark.parametrize("names", [set(), {"halve"}, {"skip"}, {"halve", "skip"}])
def test_exactly_the_named_ones_are_on_in_the_copy(names: set[str]) -> None:
    net = _Net()
    twin = simplified(net, frozenset(names))
    for module in twin.modules():
        if isinstance(module, _Twice):
            assert module.active == names
        if isinstance(module, _Folds):
            assert module.active == names & {"halve"}
    assert isinstance(twin.one, nn.Sequential if "halve" in names else _Folds)
    assert torch.equal(twin(torch.ones(1)), net(torch.ones(1)))
    # The network itself stays as it was, and a copy of the copy may be another.
    assert net.two.active == {"halve", "skip"} and isinstance(net.one, _Folds)
    assert isinstance(simplified(net, frozenset()).one, _Folds)


def test_names_that_nothing_declares_do_nothing() -> None:
    assert simplified(_Net(), frozenset({"magic"})).two.active == frozenset()  # type: ignore[union-attr]


def test_the_copy_shares_its_weights() -> None:
    net = _Net()
    twin = simplified(net, frozenset())
    for (name, one), (other, two) in zip(
        net.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert name == other and one is two
    assert twin.two.offset is net.two.offset  # type: ignore[union-attr]
    with torch.no_grad():
        net.two.weight.fill_(5.0)
    assert twin(torch.ones(1)).item() == 25.0


def test_a_module_that_is_used_twice_stays_one() -> None:
    net = _Net()
    for names in (frozenset[str](), frozenset({"halve"})):
        twin = simplified(net, names)
        inner = twin.one[0] if "halve" in names else twin.one.inner  # type: ignore[index, union-attr]
        assert inner is twin.two is twin.list[0]  # type: ignore[index]
        assert twin.two is not net.two
        assert twin.list[1] is not twin.two  # type: ignore[index]
        assert len(list(twin.parameters())) == len(list(net.parameters())) == 2


def test_two_of_one_name_are_refused() -> None:
    net = _Net()
    net.other = _Named()
    with pytest.raises(ValueError, match="two simplifications are called halve"):
        declared(net)


class _Named(Simplifiable):
    simplifications = (Simplification("halve", "another reason", "something else"),)


def test_the_copy_of_an_encoder_has_one_vit() -> None:
    net = randomised("test_vit", 64)
    encoder = pruned(net)
    for names in (frozenset[str](), frozenset({"cls-last"})):
        twin = simplified(encoder, names)
        assert twin.embed.vit is twin.vit  # type: ignore[union-attr]
        assert twin.vit.blocks[0].norm1.weight is net.blocks[0].norm1.weight  # type: ignore[index, union-attr]
