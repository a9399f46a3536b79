"""The made-up method through the whole house: nothing else names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import fgdeploy
from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.calibration import half, linears, pins
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import Calibrated, calibrate
from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.demo.moths import write_moths
from fgdeploy.engines import BuildSettings, build, open_engine
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.models.methods import registry
from fgdeploy.models.weights import checkpoint, trained
from fgdeploy.photos import read
from fgdeploy.proof.comparing import compare_engines, open_by_name
from fgdeploy.proof.parity import Limits
from fgdeploy.retrieval import Index, Item
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train
from tests.made_up import BITS, MADE_UP, OWN, SIZE, WIDTH, MadeUpOptions


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    registry.register(MADE_UP)
    torch.set_num_threads(1)
    yield
    del registry.METHODS[MADE_UP.name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 3, 16, size=96)


def _settings(data: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        data=data,
        method="made-up",
        options={"keep": "7"},
        weights="random",
        image_size=SIZE,
        bits=BITS,
        epochs=2,
        batch=8,
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
    target = tmp_path_factory.mktemp("bundles") / "made-up.fgd"
    return export_bundle(ExportSettings(checkpoint=run), target).bundle


@pytest.fixture(scope="module")
def calibrated(bundle: Bundle, data: Path) -> Calibrated:
    wide = Limits(min_bit_agreement=0.5)  # hardly trained: how good INT8 is, is not the question
    settings = CalibrationSettings(images=16)
    photos = [photo for photo in read(data) if photo.split == "train"]
    return calibrate(bundle, photos, settings, wide)


def test_no_other_file_knows_its_name() -> None:
    root = Path(fgdeploy.__file__).parent.parent
    rooms = ("fgdeploy", "models", "training", "export", "calibration", "engines")
    named = [
        path
        for room in rooms
        for path in (root / room).rglob("*.py")
        if "made-up" in path.read_text(encoding="utf-8")
    ]
    assert named == []


def test_all_its_weights_are_trained_and_saved(run: Path, data: Path, tmp_path: Path) -> None:
    learned = checkpoint.read(run / "model.safetensors")
    assert set(learned) >= OWN
    train(_settings(data, epochs=1, recipe="calm", lr=1e-12, warmup=0), tmp_path / "still")
    start = checkpoint.read(tmp_path / "still" / "model.safetensors")
    for name in OWN:
        assert (learned[name] - start[name]).abs().max() > 1e-6, name
    config = trained.load_config(run / "model.safetensors")
    assert config is not None
    assert config.options == MadeUpOptions(keep=7)


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


def test_its_manifest(bundle: Bundle) -> None:
    manifest = open_bundle(bundle.path).manifest
    assert manifest.options == {"keep": 7, "zoom": True}
    assert list(manifest.outputs) == ["code", "hash", "embedding", "box"]
    assert manifest.outputs["box"].shape == (4,)
    assert manifest.grid == (4, 4)
    assert len(manifest.classes) == 3
    # CLS, patches and the suffix; pooled; few queries; the cache comes back; twice over.
    assert [rows.tokens for rows in manifest.blocks] == [18, 9, 9, 5, 5, 6] * 2
    assert [rows.mlp for rows in manifest.blocks] == [18, 9, 5, 5, 5, 1] * 2
    assert manifest.blocks[2].query == 5 and manifest.blocks[2].keyval == 9
    assert manifest.parity is not None and "box" in manifest.parity["output_errors"]


def test_published_and_deployed_are_one_in_float64(run: Path) -> None:
    from fgdeploy.models import assembly
    from fgdeploy.models.network import Network

    chosen = assembly.choose(assembly.NetworkSettings(checkpoint=run))
    state = chosen.source.state
    assert state is not None
    head = MADE_UP.head.from_state(state, WIDTH, None, "run")
    assert head is not None
    network = Network(chosen.encoder(), head, chosen.options).double()
    frames = torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    assert set(network.simplifications()) == {"fold-normalisation", "cls-last", "fold-hash-head"}
    answers = []
    for one in (network.published(), network.deployed()):
        with torch.no_grad():
            features = one(one.pixels(frames))
            answers.append((one.hashes(features)["hash"], features.extras["box"]))
    (hashes, box), (folded, folded_box) = answers
    assert torch.equal(box, folded_box)
    # mean and std are float32 numbers in the published network, float64 ones where folded
    assert (hashes - folded).abs().max() < 1e-6 * hashes.abs().max()


def test_engines_agree_on_all_outputs(bundle: Bundle, run: Path, data: Path) -> None:
    photos = read(data)[:24]
    limits = Limits(max_hash_diff=1e-3, min_bit_agreement=1.0, max_output_error=1e-4)
    with open_by_name(bundle, "pytorch", run / "model.safetensors") as reference:
        for backend in ("onnxruntime", "openvino"):
            pytest.importorskip(backend)
            with open_engine(bundle, backend) as candidate:
                parity = compare_engines(bundle, reference, candidate, photos).parity
            assert set(parity.output_errors) == {"embedding", "box"}
            assert parity.breaches(limits) == []


def test_what_it_pins_stays_in_float32(calibrated: Calibrated) -> None:
    graph = onnx.load(calibrated.bundle.graph("fp32"))
    kept = [node.name for node in graph.graph.node if pins.of(graph).keeps(node.name)]
    assert any(name.startswith("crop/") for name in kept)
    assert any(name.startswith("steps.3.choose/") for name in kept)
    full = half.in_full(graph)
    assert set(kept) <= full
    assert not {one.node for one in linears.find(graph)} & set(kept)
    # One weight, two activations: each run of a block has INT8 weights of its own.
    found = [one for one in linears.find(graph) if one.name.startswith("blocks.0.mlp.fc1")]
    assert len(found) == 2 and found[0].weight == found[1].weight
    fp16 = onnx.load(calibrated.bundle.graph("fp16"))
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(fp16).graph.value_info
    }
    boxes = [
        name
        for node in fp16.graph.node
        if node.name.startswith("crop/") and node.op_type in ("MatMul", "Mul", "Sub")
        for name in node.output
    ]
    assert boxes and all(types[name] == onnx.TensorProto.FLOAT for name in boxes)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_is_built(calibrated: Calibrated, data: Path, backend: str, precision: str) -> None:
    pytest.importorskip(backend)
    bundle = calibrated.bundle
    try:
        build(bundle, backend, precision, BuildSettings(batches=(1, 4)))
    except fgdeploy.FgdeployError as error:
        assert precision == "int8" and "INT8" in str(error)  # refused where this CPU clips it
        pytest.skip(str(error))
    photos = [photo.path for photo in read(data)[:6]]
    with fgdeploy.load(bundle.path, backend, precision, batch=4) as hasher:
        outputs = hasher.encode_full(photos)
        assert outputs.code.shape == (6, BITS // 8)
        assert outputs.extras["box"].shape == (6, 4)
        assert (np.packbits(outputs.hash > 0, axis=1) == outputs.code).all()


@pytest.mark.parametrize("key", ["fp32", "fp16", "int8-fp16"])
def test_tensorrt_parses_and_builds_it(calibrated: Calibrated, tmp_path: Path, key: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from fgdeploy.engines.trt_build import compile_engine

    settings = BuildSettings(batches=(1, 4), compute_capabilities=("8.6",))
    target = tmp_path / "engine"
    compile_engine(trt, calibrated.bundle.graph(key), (SIZE, SIZE, 3), target, settings)
    assert target.stat().st_size > 10_000


def test_photos_are_hashed_and_found(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    photos = read(data)
    with (
        fgdeploy.load(bundle.path) as hasher,
        Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits) as index,
    ):
        codes = hasher.encode([photo.path for photo in photos])
        index.add(
            [
                Item(str(photo.path), code.tobytes(), label=photo.label)
                for photo, code in zip(photos, codes, strict=True)
            ]
        )
        hits = index.search(codes[:1], k=3)[0]
        assert hits[0].distance == 0


def test_a_weight_of_its_own_changes_the_fingerprint(
    bundle: Bundle, run: Path, tmp_path: Path
) -> None:
    seen = {bundle.manifest.fingerprint}
    state = checkpoint.read(run / "model.safetensors")
    config = trained.load_config(run / "model.safetensors")
    assert config is not None
    for number, name in enumerate(sorted(OWN)):
        changed = {**state, name: state[name] + 0.01}
        folder = tmp_path / str(number)
        folder.mkdir()
        trained.save(folder / "model.safetensors", changed, config)
        done = export_bundle(ExportSettings(checkpoint=folder), folder / "b.fgd")
        seen.add(done.bundle.manifest.fingerprint)
    assert len(seen) == 1 + len(OWN)


def test_its_authors_checkpoint_is_read_by_its_key_map(
    bundle: Bundle, run: Path, tmp_path: Path
) -> None:
    ours = checkpoint.read(run / "model.safetensors")
    theirs = {("extra" if k == "suffix" else f"net.{k}"): v for k, v in ours.items()}
    torch.save(theirs, tmp_path / "authors.pth")
    settings = ExportSettings(
        method="made-up",
        backbone="test_vit",
        image_size=SIZE,
        options={"keep": "7"},
        checkpoint=tmp_path / "authors.pth",
    )
    done = export_bundle(settings, tmp_path / "a.fgd")
    assert done.bundle.manifest.weights["sha256"] == bundle.manifest.weights["sha256"]
    assert done.bundle.manifest.fingerprint == bundle.manifest.fingerprint


def test_what_does_not_fit_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the method's options are keep, zoom"):
        MadeUpOptions.parse({"speed": "1"})
    with pytest.raises(UsageError, match="expected a whole number such as 9"):
        MadeUpOptions.parse({"keep": "many"})
    with pytest.raises(UsageError, match="no recipe 'paper'; choose fast, calm"):
        MADE_UP.recipe("paper")
    settings = ExportSettings(checkpoint=run, options={"keep": "5"})
    with pytest.raises(CheckpointError, match=r"has misshapen steps\.2\.queries"):
        export_bundle(settings, tmp_path / "b.fgd")
    assert list(tmp_path.iterdir()) == []
