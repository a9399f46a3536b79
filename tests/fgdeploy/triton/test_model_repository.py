"""A written repository: what lies in it runs, and gives the bundle's own answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.bundle import Bundle, checks, open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import (
    BundleError,
    DataError,
    EngineError,
    MissingDependency,
    UsageError,
)
from fgdeploy.photos import Preprocess
from fgdeploy.triton import ServingSettings, write_repository
from tests.checks import refused
from tests.fgdeploy.triton.conftest import put_plan

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")


def config_of(model: Path) -> Any:
    """Read a configuration as Triton does: by its own protobuf."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def warmed(model: Path, config: Any, session: Any) -> list[tuple[int, dict[str, Any]]]:
    """Run a model as Triton's warm-up would; returns each batch size and the outputs by name."""
    names = [one.name for one in config.output]
    found = []
    for run in config.model_warmup:
        entry = run.inputs["frames"]
        frame = np.fromfile(model / "warmup" / entry.input_data_file, np.uint8)
        frames = np.stack([frame.reshape(tuple(entry.dims))] * run.batch_size)
        found.append(
            (run.batch_size, dict(zip(names, session.run(names, {"frames": frames}), strict=True)))
        )
    return found


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_warm_up_files_give_the_bundles_answers(backend: str, eet: Bundle, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    settings = ServingSettings(backend=backend, max_batch=6, instances=2, queue_delay_us=500)
    written = write_repository(eet, tmp_path / "repo", settings)
    config = config_of(written.path)
    assert (config.name, config.backend, config.max_batch_size) == ("eet", backend, 6)
    assert list(config.dynamic_batching.preferred_batch_size) == [6]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, 2)]  # KIND_CPU
    assert config.default_model_filename == "model.onnx"
    session = onnxruntime.InferenceSession(written.path / "1" / "model.onnx")
    expected = checks.read(eet)
    assert expected is not None
    runs = warmed(written.path, config, session)
    assert [batch for batch, _ in runs] == [1, 6]
    for number, (batch, found) in enumerate(runs):
        assert found["code"].dtype == np.uint8 and found["code"].shape == (batch, 4)
        assert (found["code"] == expected.codes[number]).all()
        assert np.allclose(found["hash"], expected.hashes[number], atol=1e-5)
        assert (np.packbits(found["hash"] > 0, axis=1) == found["code"]).all()


def test_the_int8_graph_gives_the_calibrated_codes(eet: Bundle, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    written = write_repository(eet, tmp_path / "repo", ServingSettings(precision="int8"))
    assert written.graph == "int8-u8" and "VNNI" in written.needs[0]
    assert "# Needs on x86 a CPU with VNNI" in (written.path / "config.pbtxt").read_text()
    session = onnxruntime.InferenceSession(written.path / "1" / "model.onnx")
    runs = warmed(written.path, config_of(written.path), session)
    expected = checks.read(eet)
    assert expected is not None and expected.int8 is not None
    if {"avx512_vnni", "avx_vnni"} & set(machine.cpu().features):
        for number, (_, found) in enumerate(runs):
            assert (found["code"] == expected.int8[number]).all()


def test_parameters_say_whose_codes_these_are(eet: Bundle, tmp_path: Path) -> None:
    written = write_repository(eet, tmp_path / "repo", ServingSettings(precision="fp16"))
    held = {key: one.string_value for key, one in config_of(written.path).parameters.items()}
    assert held["fgdeploy.fingerprint"] == eet.manifest.fingerprint
    assert (held["fgdeploy.bits"], held["fgdeploy.graph"]) == ("32", "fp16")
    assert Preprocess.from_json(json.loads(held["fgdeploy.preprocess"])) == eet.manifest.preprocess
    rows = [[one.block, one.tokens] for one in eet.manifest.blocks]
    assert json.loads(held["fgdeploy.pruning"]) == rows


def test_class_names_become_labels(naming_bundle: Path, tmp_path: Path) -> None:
    written = write_repository(open_bundle(naming_bundle), tmp_path / "repo", ServingSettings())
    labelled = {one.name: one.label_filename for one in config_of(written.path).output}
    assert labelled == {"code": "", "hash": "", "embedding": "", "logits": "labels.txt"}
    lines = (written.path / "labels.txt").read_text().splitlines()
    assert lines == [f"kind {number}" for number in range(6)]
    # Never calibrated: a generated picture of the right size stands in for check frames
    assert (written.path / "warmup" / "frame_0.raw").stat().st_size == 32 * 32 * 3


def test_bundles_and_versions_stand_side_by_side(
    eet: Bundle, toy_bundle: Path, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    first = write_repository(eet, repo, ServingSettings())
    write_repository(open_bundle(toy_bundle), repo, ServingSettings())
    again = write_repository(eet, repo, ServingSettings(version=2, precision="fp16"))
    assert {path.name for path in repo.iterdir()} == {"eet", "toy"}
    assert {path.name for path in first.path.iterdir()} == {"1", "2", "config.pbtxt", "warmup"}
    assert (again.path / "1" / "model.onnx").read_bytes() == eet.graph("fp32").read_bytes()
    assert (again.path / "2" / "model.onnx").read_bytes() == eet.graph("fp16").read_bytes()
    config = config_of(again.path)
    assert config.version_policy.HasField("all")
    for version in (1, 2):
        held = config.parameters[f"fgdeploy.fingerprint.{version}"].string_value
        assert held == eet.manifest.fingerprint


def test_what_stands_there_is_not_lost(eet: Bundle, toy_bundle: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    written = write_repository(eet, repo, ServingSettings())
    before = (written.path / "config.pbtxt").read_bytes()
    with refused(DataError, "has version 1 already; pass --overwrite"):
        write_repository(eet, repo, ServingSettings())
    toy = open_bundle(toy_bundle)
    with refused(DataError, "of other tensors"):
        write_repository(toy, repo, ServingSettings(name="eet", version=2))
    (repo / "theirs").mkdir()
    with refused(DataError, "has no config.pbtxt, so fgdeploy did not write it"):
        write_repository(eet, repo, ServingSettings(name="theirs"), overwrite=True)
    (written.path / "notes.txt").write_text("mine")
    with refused(DataError, "holds notes.txt"):
        write_repository(eet, repo, ServingSettings(), overwrite=True)
    (written.path / "notes.txt").unlink()
    assert (written.path / "config.pbtxt").read_bytes() == before
    write_repository(eet, repo, ServingSettings(max_batch=2), overwrite=True)
    assert config_of(written.path).max_batch_size == 2
    assert {path.name for path in repo.iterdir()} == {"eet", "theirs"}


def test_nothing_is_left_of_what_failed(
    eet: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        write_repository(eet, tmp_path / "repo", ServingSettings())
    assert list(tmp_path.iterdir()) == []


def test_a_plan_goes_with_its_gpu_and_its_tensorrt(own: Bundle, tmp_path: Path) -> None:
    content = put_plan(own)
    settings = ServingSettings(backend="tensorrt", precision="fp16")
    written = write_repository(own, tmp_path / "repo", settings)
    assert (written.path / "1" / "model.plan").read_bytes() == content
    config = config_of(written.path)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 4)
    assert config.instance_group[0].kind == 1  # KIND_GPU
    text = (written.path / "config.pbtxt").read_text()
    assert "# Needs the GPU Orin (compute capability 8.7)." in text
    assert "# Needs TensorRT 10.3.0" in text
    with refused(UsageError, "the engine was built for 4 at most; build it again with --batch 1,9"):
        many = dataclasses.replace(settings, max_batch=9, version=2)
        write_repository(own, tmp_path / "repo", many)


def test_a_plan_is_never_guessed(own: Bundle, tmp_path: Path) -> None:
    settings = ServingSettings(backend="tensorrt", precision="fp16")
    with refused(EngineError, "on the server's own GPU run: fgdeploy build-engine .*tensorrt"):
        write_repository(own, tmp_path / "repo", settings)
    put_plan(own)
    content = put_plan(own, "tensorrt-fp16-sm90", "1,2")
    with refused(EngineError, "holds 2 TensorRT engines.*name one with --engine"):
        write_repository(own, tmp_path / "repo", settings)
    chosen = dataclasses.replace(settings, engine="tensorrt-fp16-sm90")
    written = write_repository(own, tmp_path / "repo", chosen)
    assert (written.path / "1" / "model.plan").read_bytes() == content
    (own.path / "engines" / "tensorrt-fp16-sm90" / "engine.plan").write_bytes(b"cut")
    with refused(EngineError, "is a corrupt or cut engine"):
        write_repository(own, tmp_path / "other", chosen)
    assert not (tmp_path / "other").exists()


def _no_folder(_: Bundle, folder: Path) -> Path:
    return folder / "none" / "repo"


def _a_file(_: Bundle, folder: Path) -> Path:
    (folder / "repo").write_text("not a folder")
    return folder / "repo"


def _a_link(_: Bundle, folder: Path) -> Path:
    (folder / "repo").mkdir()
    (folder / "repo" / "eet").symlink_to(folder)
    return folder / "repo"


def _a_strange_config(_: Bundle, folder: Path) -> Path:
    (folder / "repo" / "eet").mkdir(parents=True)
    (folder / "repo" / "eet" / "config.pbtxt").write_text("no: such {")
    return folder / "repo"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (_no_folder, "no folder .*none to write repo into"),
        (_a_file, "is not a folder; give another -o"),
        (_a_link, "is no folder of a model"),
        (_a_strange_config, "is not a model configuration of Triton"),
    ],
)
def test_places_that_cannot_take_it(
    place: Callable[[Bundle, Path], Path], words: str, eet: Bundle, tmp_path: Path
) -> None:
    repo = place(eet, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with refused(DataError, words):
        write_repository(eet, repo, ServingSettings())
    assert sorted(tmp_path.rglob("*")) == before


def test_what_the_bundle_has_not(toy_bundle: Path, tmp_path: Path) -> None:
    toy = open_bundle(toy_bundle)
    with refused(BundleError, "holds no int8 graph, only fp32"):
        write_repository(toy, tmp_path / "repo", ServingSettings(precision="int8"))
    renamed = dataclasses.replace(toy, path=toy.path.with_name(".odd name.fgd"))
    with refused(UsageError, "is no name for a model of Triton; give one with --name"):
        write_repository(renamed, tmp_path / "repo", ServingSettings())


def test_without_tritonclient(eet: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with refused(MissingDependency, r'run: pip install "fgdeploy\[triton\]"'):
        write_repository(eet, tmp_path / "repo", ServingSettings())
    assert list(tmp_path.iterdir()) == []
