"""Cropr against a plain float64 reference: queries that score, rows that come back at last."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import onnx
import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.export.graph import DeployGraph, write_onnx
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods import registry
from fgdeploy.models.network import Network
from fgdeploy.models.plan import record
from fgdeploy.models.reduce.cropr import Aggregator, Scorer
from tests.checks import refused
from tests.models.reduce import learned, proof
from tests.models.samples import images


def _reducing(rate: float, fuse: bool = True) -> proof.Make:
    return lambda stage, start: learned.Cropr(stage, max(1, int(16 * rate**stage)), fuse)


@pytest.mark.parametrize(("rate", "fuse"), [(0.1, True), (0.5, True), (0.9, False)])
def test_it_equals_the_reference_alone_and_in_clca(rate: float, fuse: bool) -> None:
    given = {"keep_rate": str(rate), "fuse": str(fuse).lower()}
    proof.check("cropr", _reducing(rate, fuse), given)
    proof.check("cropr", _reducing(rate, fuse), given, clca={})


def test_rows_of_the_plan_and_no_aggregator_in_it() -> None:
    for fuse, last in (("true", 17), ("false", 3)):
        made = proof.encoder("cropr", {"keep_rate": "0.5", "fuse": fuse}).float()
        plan = record(Network(made, NoHead()).deployed(), 64)
        assert [run.keyval for run in plan.runs] == [17, 17, 9, 5, 5, last]
        assert plan.runs[-1].query == 1  # what comes back costs keys and values, no more
        assert plan.others == (17 + 9 + 5) * 64


def test_in_training_a_query_learns_from_what_it_gathers_and_nothing_else_does() -> None:
    made = proof.encoder("cropr", {"keep_rate": "0.7"}).requires_grad_(True).train()
    features = made(images(2, 64))
    assert [tuple(one.shape) for one in features.readouts] == [(2, 64)] * 3
    torch.stack(features.readouts).square().sum().backward()
    own = made.own()
    assert len(own) == 3 * 7
    for name, weight in made.state().items():
        learns = weight.grad is not None and bool(weight.grad.any())
        assert learns == (name in own), name
    assert made.eval()(images(2, 64)).readouts == ()


def test_readouts_are_cross_attention_with_a_perceptron_beside_it() -> None:
    made = proof.encoder("cropr", {"blocks": "2", "keep_rate": "0.5"}).train()
    photos = images(1, 64)
    x = made.embed(photos).x
    for block in made.vit.blocks[:2]:
        x = block(x)
    p = {name.removeprefix("stages.0."): value for name, value in made.state().items()}
    shares = (p["scorer.queries"] @ x[0].T * 64**-0.5).softmax(dim=1)
    gathered = shares @ x[0]  # CLS takes part
    y = torch.nn.functional.layer_norm(
        gathered, (64,), p["aggregate.norm.weight"], p["aggregate.norm.bias"], 1e-6
    )
    y = torch.nn.functional.gelu(y @ p["aggregate.mlp.0.weight"].T + p["aggregate.mlp.0.bias"])
    want = gathered + y @ p["aggregate.mlp.2.weight"].T + p["aggregate.mlp.2.bias"]
    proof.close(made(photos).readouts[0], want, 1e-12)


def test_the_loss_of_the_task_reaches_kept_rows_but_no_query() -> None:
    made = proof.encoder("cropr", {}).requires_grad_(True).train()
    made(images(2, 64)).embedding.square().sum().backward()
    state = made.state()
    assert state["stages.0.scorer.queries"].grad is None
    assert state["blocks.0.mlp.fc1.weight"].grad.abs().max() > 0


def test_weights_of_the_aggregator_travel_with_the_checkpoint() -> None:
    one = Network(proof.encoder("cropr", {}), NoHead())
    other = copy.deepcopy(one)
    with torch.no_grad():
        other.state()["stages.1.aggregate.mlp.0.weight"].add_(1)
    assert one.fingerprint() != other.fingerprint()
    photos = images(1, 64)
    assert torch.equal(one(photos).embedding, other(photos).embedding)  # it decides nothing
    other.load(one.state(), "one")
    assert one.fingerprint() == other.fingerprint()


def test_weights_start_as_the_authors_start_them() -> None:
    torch.manual_seed(0)
    assert 0.9 < Scorer(1024).queries.std() * 1024**0.5 < 1.1
    for layer in (Aggregator(64).mlp[0], Aggregator(64).mlp[2]):
        assert 0.019 < layer.weight.std() < 0.021


def test_fuse_is_an_option_of_its_own_and_of_clca() -> None:
    with refused(UsageError, "true or false"):
        registry.get("cropr").options.parse({"fuse": "maybe"})
    for method in ("cropr", "clca"):
        fields = {field.name for field in dataclasses.fields(registry.get(method).options)}
        assert "fuse" in fields


def test_no_graph_has_the_aggregator(tmp_path: Path) -> None:
    made = proof.encoder("cropr", {"keep_rate": "0.5"}).float()
    network = Network(made, ClassHashHead.fresh(made.width, 3, 8)).eval()
    facts = write_onnx(DeployGraph(network.deployed()), 64, tmp_path / "a.onnx", 18)
    for block in proof.BLOCKS:
        for part in ("scorer", "select"):
            assert any(node.startswith(f"steps.{block}.{part}") for node in facts.nodes)
    held = onnx.load(tmp_path / "a.onnx").graph.initializer
    assert not any("aggregate" in one.name for one in held)
    assert not any("aggregate" in node for node in facts.nodes)
