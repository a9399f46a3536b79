"""GLSim through every engine: two looks in one graph, boxes equal to the last digit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from fgdeploy.bundle import Bundle
from fgdeploy.calibration import cache
from fgdeploy.demo.moths import write_moths
from fgdeploy.engines import Engine, open_engine
from fgdeploy.export import exporter, verify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.models.assembly import NetworkSettings, choose
from tests import exported
from tests.models.methods.glsim_authors import CLASSES, OWN, own_vit, write

SIZE, BITS = 64, 32
RELEASED, TRAINED, SELECTED = "released", "trained", "selected"


@pytest.fixture(scope="module", autouse=True)
def backbones() -> Iterator[None]:
    torch.set_num_threads(1)
    yield from exported.narrow_backbones()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 2, 12, size=96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def _settings(name: str, folder: Path, photos: Path) -> ExportSettings:
    """Return an authors' file with ITQ and logits, or a random network with a trained head."""
    if name == RELEASED:
        file = write(folder / "vit_t16_best.pth", own_vit(), OWN)
        given = {"head": "itq", "bits": BITS, "fit_data": photos, "logits": True}
        return ExportSettings(method="glsim", checkpoint=file, **given)
    options = {"look": "select", "top": "3", "aggregator": "conv"} if name == SELECTED else {}
    where = {"backbone": exported.SHORT, "image_size": SIZE}
    random = NetworkSettings("glsim", options, weights="random", **where)
    net = choose(random).trainable(CLASSES, BITS)
    state = {key: value.detach().clone() for key, value in net.state().items()}
    safetensors.torch.save_file(state, folder / f"{name}.safetensors")
    file = folder / f"{name}.safetensors"
    return ExportSettings(
        method="glsim", options=options, checkpoint=file, logits=name == TRAINED, **where
    )


@pytest.fixture(
    scope="module", params=[RELEASED, TRAINED, pytest.param(SELECTED, marks=pytest.mark.slow)]
)
def bundle(request: pytest.FixtureRequest, folder: Path, photos: Path) -> Bundle:
    settings = _settings(request.param, folder, photos)
    return export_bundle(settings, folder / f"{request.param}.fgd").bundle


@pytest.fixture(scope="module")
def reference(bundle: Bundle, folder: Path) -> Iterator[Engine]:
    with exporter.rebuild(bundle, folder / bundle.manifest.weights["source"]) as engine:
        yield engine


def test_engines_agree_with_pytorch(bundle: Bundle, reference: Engine) -> None:
    size = bundle.manifest.image_size
    side = size // 16
    logits = [] if bundle.path.stem == SELECTED else ["logits"]
    box = [] if bundle.path.stem == SELECTED else ["box"]
    expected = ["code", "hash", "embedding", *logits, *box, "similarity"]
    outputs = bundle.manifest.outputs
    assert list(outputs) == expected
    assert outputs["similarity"].shape == (side, side)
    assert not box or outputs["box"].shape == (4,)
    frames = np.concatenate(
        [verify.frames_for(size, [], seed=1), exported.tied(96)[:, :size, :size]]
    )
    exported.hold_to_pytorch(bundle, reference, frames)
    if box:
        wanted = reference.run(frames).arrays()["box"]
        assert len(np.unique(wanted, axis=0)) > 2
        for backend in exported.BACKENDS:
            with open_engine(bundle, backend) as engine:
                np.testing.assert_array_equal(engine.run(frames).arrays()["box"], wanted)


def test_both_looks_share_their_weights(bundle: Bundle) -> None:
    """A matrix of the ViT is in the file once, read by both passes."""
    graph = onnx.load(bundle.graph("fp32")).graph
    readers = Counter(name for node in graph.node for name in set(node.input))
    held = {one.name: one for one in graph.initializer}
    looks = 1 if bundle.path.stem == SELECTED else 2
    kernels = [one for one in held.values() if len(one.dims) == 4 and one.dims[1] == 3]
    assert [readers[one.name] for one in kernels] == [looks]
    depth = bundle.manifest.depth
    proj = [
        node.input[1]
        for node in graph.node
        if re.match(r"blocks\.\d+\.attn\.proj/.*MatMul", node.name)
    ]
    assert len(proj) == looks * depth and len(set(proj)) == depth
    contents = [one.raw_data for one in held.values() if len(one.dims) == 2]
    assert len(contents) == len(set(contents))


def test_low_precision_keeps_what_decides(bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    if bundle.path.stem == TRAINED:
        pytest.skip("the same graph as of the authors' file")
    size = bundle.manifest.image_size
    calibrated = exported.calibrated(bundle, photos)
    crops = {"rectangle", "crop", "crop.hats", "crop.across", "crop.down"}
    expected = {"best_first"} if bundle.path.stem == SELECTED else crops
    assert exported.hold_what_decides(calibrated) == {"similarity", *expected}
    held = cache.read(calibrated)
    assert held is not None
    readers = {name.partition(".")[0] for one in held.ranges.values() for name in one["readers"]}
    assert "blocks" in readers and readers <= {"blocks", "steps"}  # no aggregator of a few rows
    exported.hold_precisions(calibrated, size)
    exported.build_for_tensorrt(calibrated, size, tmp_path, "fp32", "fp16", "int8-fp16")


def test_adapters_are_in_the_graph_of_both_looks(tmp_path: Path) -> None:
    case = exported.Case("glsim", ("adapter=convpass", "top=3"))
    made = exported.Exports(tmp_path).of(case)  # held to PyTorch there
    nodes = onnx.load(made.graph("fp32")).graph.node
    convolved = [node.name for node in nodes if node.op_type == "Conv" and "adapter" in node.name]
    assert len(convolved) == 14  # two in each of 4 blocks, twice; behind the last CLS is read alone
