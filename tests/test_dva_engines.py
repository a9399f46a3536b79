"""DVA from training to every engine: only adapters learn, and they are gone in the graph."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from fgdeploy.bundle import Bundle
from fgdeploy.demo.moths import write_moths
from fgdeploy.engines import open_engine
from fgdeploy.export import exporter, verify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.network import Network
from fgdeploy.models.weights import checkpoint
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train
from tests import exported

SIZE, WIDTH, BITS = 64, 64, 16


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 3, 8, size=80)


def _settings(data: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        data=data,
        method="dva",
        options={"rank": "4", "own_norm": "true"},
        backbone="test_vit",
        weights="random",
        image_size=SIZE,
        bits=BITS,
        epochs=2,
        batch=8,
        lr=1e-2,
        precision="fp32",
    )
    return dataclasses.replace(settings, **changes)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(_settings(data), folder)
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("bundles") / "adapted.fgd"
    return export_bundle(ExportSettings(checkpoint=run), target).bundle


def _network(run: Path) -> Network:
    chosen = assembly.choose(NetworkSettings(checkpoint=run))
    head = ClassHashHead.from_state(chosen.source.state or {}, WIDTH, None, "run")
    assert head is not None
    return Network(chosen.encoder(), head, chosen.options)


def test_only_adapters_and_heads_learn(run: Path) -> None:
    start = assembly.choose(
        NetworkSettings(
            "dva", {"rank": "4", "own_norm": "true"}, "test_vit", SIZE, weights="random"
        )
    ).encoder()
    learned = checkpoint.read(run / "model.safetensors")
    for name, value in start.state().items():
        same = torch.equal(value, learned[name])
        assert same == (name not in start.own()), name
    config = (run / "model.json").read_text(encoding="utf-8")
    assert '"own_norm": true' in config and '"targets": "qk"' in config


def test_a_run_that_is_broken_off_goes_on_to_the_same_weights(
    run: Path, data: Path, tmp_path: Path
) -> None:
    def breaks(tick: Any) -> None:
        if tick.epoch == 2:
            raise InterruptedError

    folder = tmp_path / "again"
    with pytest.raises(InterruptedError):
        train(_settings(data), folder, reporter=Reporter(tick=breaks))
    train(_settings(data), folder, resume=True)
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_engines_agree_with_pytorch(bundle: Bundle, run: Path) -> None:
    manifest = bundle.manifest
    assert list(manifest.outputs) == ["code", "hash", "embedding"]
    assert "fold-adapters" in manifest.graph["simplifications"]
    assert manifest.macs["published"] - manifest.macs["dense"] == 6 * 2 * 17 * 2 * WIDTH * 4
    frames = verify.frames_for(SIZE, [])
    with exporter.rebuild(bundle, run / "model.safetensors") as reference:
        exported.hold_to_pytorch(bundle, reference, frames)


def test_tensorrt_builds_it_and_low_precision_runs(
    bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    calibrated = exported.calibrated(bundle, data)
    exported.hold_precisions(calibrated, SIZE)
    assert exported.hold_what_decides(calibrated) == set()
    exported.build_for_tensorrt(calibrated, SIZE, tmp_path, "fp32", "fp16", "int8-fp16")


def test_its_graph_is_that_of_the_plain_vit(bundle: Bundle, run: Path, tmp_path: Path) -> None:
    """The folded weights are a plain ViT's file: same nodes, same cost, same hashes."""
    folded = _network(run).deployed(frozenset({"fold-normalisation", "fold-hash-head"}))
    state = {name: value.contiguous() for name, value in folded.state().items()}
    vit = folded.encoder.vit
    for number, block in enumerate(vit.blocks):
        state[f"blocks.{number}.norm1.weight"] = torch.ones(WIDTH)
        state[f"blocks.{number}.norm1.bias"] = torch.zeros(WIDTH)
        assert block.attn.qkv.weight is state[f"blocks.{number}.attn.qkv.weight"]
    safetensors.torch.save_file(state, tmp_path / "folded.safetensors")
    settings = ExportSettings(
        method="eet",
        options={"stages": "none"},
        backbone="test_vit",
        image_size=SIZE,
        checkpoint=tmp_path / "folded.safetensors",
    )
    plain = export_bundle(settings, tmp_path / "plain.fgd").bundle
    graphs = [onnx.load(one.graph("fp32")).graph for one in (bundle, plain)]
    kinds = [Counter(node.op_type for node in graph.node) for graph in graphs]
    assert kinds[0] == kinds[1]
    assert bundle.manifest.macs["exported"] == plain.manifest.macs["exported"]
    frames = verify.frames_for(SIZE, [])
    hashes = []
    for one in (bundle, plain):
        with open_engine(one, "onnxruntime") as engine:
            hashes.append(engine.run(frames).hash)
    assert np.abs(hashes[0] - hashes[1]).max() <= 1e-5 * np.abs(hashes[0]).max()
