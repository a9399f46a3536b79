"""The first look at the photos gives an aggregate its statistics, in one pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.aggregate import Aggregate
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods import registry
from fgdeploy.models.network import Network
from fgdeploy.training.looking import look
from tests.training import setups


def _network(name: str = "clca") -> Network:
    backbone = vit.create("test_vit", setups.SIZE, seed=1)
    options = registry.get(name).options().resolved(backbones.geometry(backbone))
    torch.manual_seed(0)
    return Network(registry.get(name).build(backbone, setups.NORM, options), NoHead(), options)


def test_embeddings_and_statistics_are_those_of_all_photos() -> None:
    net, calls = _network().eval(), 0

    def embed(given: Network) -> npt.NDArray[np.float32]:
        nonlocal calls
        calls += 1
        with torch.no_grad():  # in two parts, as the photos come in batches
            parts = [given(setups.IMAGES[:12]).embedding, given(setups.IMAGES[12:]).embedding]
        return torch.cat(parts).numpy()

    rows = look(net, embed)
    assert calls == 1 and not net.training
    np.testing.assert_allclose(rows, embed(net), atol=2e-6)
    kept: list[Tensor] = []
    aggregate = net.encoder.aggregate
    assert isinstance(aggregate, Aggregate) and aggregate.norm_in.running_mean is not None
    aggregate.register_forward_pre_hook(lambda module, given: kept.append(given[0]))
    embed(net)
    torch.testing.assert_close(aggregate.norm_in.running_mean, torch.cat(kept).mean(dim=(0, 2)))


def test_a_network_without_an_aggregate_is_looked_at_as_it_is() -> None:
    net = _network("evit").eval()
    np.testing.assert_array_equal(look(net, setups.embed), setups.embed(net))
