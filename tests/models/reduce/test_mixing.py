"""SiT and PatchMerger against a plain float64 reference; without a row, their weights are empty."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from fgdeploy.export.graph import DeployGraph, write_onnx
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.network import Network
from fgdeploy.models.plan import record
from fgdeploy.models.reduce.patchmerger import Merger
from fgdeploy.models.reduce.sit import Slimming
from fgdeploy.models.weights import checkpoint
from tests.models.reduce import proof
from tests.models.reduce.learned import PatchMerger, SiT
from tests.models.samples import images

BOTH = pytest.mark.parametrize("name", ["sit", "patchmerger"])
KINDS = {"sit": SiT, "patchmerger": PatchMerger}
CUBED = {rate: tuple(rate**stage for stage in (1, 2, 3)) for rate in (0.1, 0.5)}


def _reducing(name: str, rates: tuple[float, ...], patches: int = 16) -> proof.Make:
    return lambda stage, start: KINDS[name](stage, int(patches * rates[stage - 1]))


@BOTH
@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ("0.5", CUBED[0.5]),
        ("0.1", CUBED[0.1]),  # 1, 0 and 0 rows
        ("0.7,0.5,0.3", (0.7, 0.5, 0.3)),  # a list says what is left of all patches
    ],
)
def test_it_equals_the_reference_alone_and_in_clca(
    name: str, given: str, rates: tuple[float, ...]
) -> None:
    proof.check(name, _reducing(name, rates), {"keep_rate": given})
    proof.check(name, _reducing(name, rates), {"keep_rate": given}, clca={})


@BOTH
def test_registers_stay_as_they_are(name: str) -> None:
    backbone = "vit_small_patch14_reg4_dinov2"
    proof.check(name, _reducing(name, CUBED[0.5], 25), {}, backbone)
    proof.check(name, _reducing(name, CUBED[0.5], 25), {}, backbone, clca={"clr": 2})


@BOTH
def test_rows_of_the_plan(name: str) -> None:
    made = proof.encoder("clca", {"reduction": name, "keep_rate": "0.5"}).float()
    plan = record(Network(made, NoHead()).deployed(), 64)
    assert [run.keyval for run in plan.runs] == [18, 1 + 8, 1 + 4, 5 + 2, 1 + 2, 3 + 4]
    products = {
        "patchmerger": [2 * rows * 64 * left for rows, left in ((17, 8), (10, 4), (6, 2))],
        "sit": [
            rows * (64 * 32 + 32 * left + left * 64) for rows, left in ((17, 8), (10, 4), (6, 2))
        ],
    }
    assert plan.others == sum(products[name])


@BOTH
def test_gradients_reach_all_weights_of_stages_that_leave_rows(name: str) -> None:
    made = proof.encoder(name, {"keep_rate": "0.3"}).requires_grad_(True).train()  # 4, 1, 0 rows
    made(images(2, 64)).embedding.square().sum().backward()
    for key in sorted(made.own()):
        weight = made.state()[key]
        learns = weight.grad is not None and bool(weight.grad.any())
        assert learns == (not key.startswith("stages.2")), key


@BOTH
def test_empty_weights_are_saved_loaded_and_fingerprinted(name: str, tmp_path: Path) -> None:
    import safetensors.torch

    network = Network(proof.encoder(name, {"keep_rate": "0.3"}), NoHead())
    empty = {key for key, value in network.state().items() if value.numel() == 0}
    assert (
        empty
        == {
            "sit": {"stages.2.cluster.weight.3.weight", "stages.2.cluster.weight.3.bias"},
            "patchmerger": {"stages.2.cluster.queries"},
        }[name]
    )
    safetensors.torch.save_file(network.state(), tmp_path / "a.safetensors")
    torch.save(network.state(), tmp_path / "a.pth")
    for file in ("a.safetensors", "a.pth"):
        other = Network(proof.encoder(name, {"keep_rate": "0.3"}), NoHead())
        with torch.no_grad():
            for value in other.state().values():
                value.zero_()
        assert other.fingerprint() != network.fingerprint()
        other.load(checkpoint.read(tmp_path / file), file)
        assert other.fingerprint() == network.fingerprint()


def test_weights_start_as_the_authors_start_them() -> None:
    torch.manual_seed(0)
    merger, slimming = Merger(64, 90), Slimming(64, 90)
    assert 0.95 < merger.queries.std() < 1.05
    assert slimming.scale.shape == (1, 1, 1) and slimming.scale.item() == 1
    for layer in (slimming.weight[1], slimming.weight[3]):
        assert 0.018 < layer.weight.std() < 0.022 and not layer.bias.any()


def test_a_graph_has_no_empty_tensors(tmp_path: Path) -> None:
    encoder = proof.encoder("clca", {"reduction": "sit", "keep_rate": "0.3"}).float()
    network = Network(encoder, ClassHashHead.fresh(encoder.width, 3, 8)).eval()
    write_onnx(DeployGraph(network.deployed()), 64, tmp_path / "a.onnx", 18)
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "a.onnx")).graph
    assert graph.initializer and not any(0 in one.dims for one in graph.initializer)
    sides = [one.type.tensor_type.shape.dim for one in graph.value_info]
    assert not any(not side.dim_param and side.dim_value == 0 for one in sides for side in one)
