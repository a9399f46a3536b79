"""Exports: proven, refused, reproducible."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from PIL import Image

import fgdeploy
from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import (
    BundleError,
    CheckpointError,
    DataError,
    ExportError,
    FgdeployError,
    StageError,
    UsageError,
)
from fgdeploy.engines import open_engine
from fgdeploy.export import exporter, graph, verify
from fgdeploy.export.assemble import assemble
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import Exported, export_bundle, rebuild
from fgdeploy.export.reference import PyTorchEngine
from fgdeploy.models import hub
from fgdeploy.models.stages import Stage

TINY = "deit_tiny_patch16_224"
MINI = "test_vit"  # timm's own test model: 6 blocks of width 64
RANDOM = ExportSettings(
    backbone=MINI,
    weights="random",
    image_size=64,
    stages=(Stage(2, 8), Stage(4, 4), Stage(5, 2)),
    bits=12,
    head="lsh",
)


def _frames(count: int, size: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_graph_follows_the_contract(random_export: Exported) -> None:
    bundle = random_export.bundle
    proto = onnx.load(str(bundle.graph()))
    frames = proto.graph.input[0].type.tensor_type
    assert proto.graph.input[0].name == "frames"
    assert frames.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value or d.dim_param for d in frames.shape.dim] == ["batch", 64, 64, 3]
    kinds = {output.name: output.type.tensor_type.elem_type for output in proto.graph.output}
    assert kinds == {
        "code": onnx.TensorProto.UINT8,
        "hash": onnx.TensorProto.FLOAT,
        "embedding": onnx.TensorProto.FLOAT,
    }
    assert max(entry.version for entry in proto.opset_import) <= 20
    ops = [node.op_type for node in proto.graph.node]
    assert ops.count("TopK") == 3
    assert ops.count("LayerNormalization") == 13
    assert not graph._DYNAMIC_OPS & set(ops)
    assert ops[0] == "Cast" or "Transpose" not in ops[: ops.index("Cast")]
    constants = {i.name for i in proto.graph.initializer}
    assert all(n.input[1] in constants for n in proto.graph.node if n.op_type == "TopK")
    assert {entry.domain for entry in proto.opset_import} <= {"", "ai.onnx"}


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_onnx_equals_pytorch(random_export: Exported, batch: int) -> None:
    bundle = random_export.bundle
    frames = _frames(batch, 64)
    expected = rebuild(bundle, None).run(frames)
    with open_engine(bundle, "onnxruntime") as engine:
        got = engine.run(frames)
    assert np.abs(got.hash - expected.hash).max() < 1e-5
    clear = np.abs(expected.hash) > 1e-3
    bits = np.unpackbits(got.code, axis=1, count=12)
    assert (bits == (expected.hash > 0))[clear].all()
    assert (np.packbits(got.hash > 0, axis=1) == got.code).all()
    assert got.code.shape == (batch, 2)
    assert got.embedding is not None
    assert got.embedding.shape == (batch, 64)


def test_manifest_says_what_was_made(random_export: Exported) -> None:
    manifest = random_export.bundle.manifest
    assert [dataclasses.astuple(stage) for stage in manifest.stages] == [
        (2, 16, 8),
        (4, 8, 4),
        (5, 4, 2),
    ]
    assert (manifest.bits, manifest.code_bytes, manifest.patches) == (12, 2, 16)
    assert manifest.macs["exported"] < manifest.macs["published"] < manifest.macs["dense"]
    assert manifest.parity is not None
    assert manifest.parity["photos"] == 8
    assert manifest.preprocess.mean == (0.5, 0.5, 0.5)
    assert set(manifest.files) == {"model.onnx", "head.npz"}


def test_the_same_settings_give_the_same_codes(random_export: Exported, tmp_path: Path) -> None:
    again = export_bundle(RANDOM, tmp_path / "again.fgd")
    assert again.bundle.manifest.fingerprint == random_export.bundle.manifest.fingerprint
    other = export_bundle(dataclasses.replace(RANDOM, seed=1), tmp_path / "other.fgd")
    assert other.bundle.manifest.fingerprint != random_export.bundle.manifest.fingerprint


@pytest.mark.parametrize("name", [*graph.SIMPLIFICATIONS, "all"])
def test_each_simplification_can_be_left_out(
    random_export: Exported, tmp_path: Path, name: str
) -> None:
    names = frozenset(graph.SIMPLIFICATIONS if name == "all" else [name])
    plain = export_bundle(dataclasses.replace(RANDOM, without=names), tmp_path / "plain.fgd")
    assert plain.bundle.manifest.fingerprint == random_export.bundle.manifest.fingerprint
    frames = _frames(4, 64)
    with (
        open_engine(plain.bundle, "onnxruntime") as one,
        open_engine(random_export.bundle, "onnxruntime") as two,
    ):
        assert np.abs(one.run(frames).hash - two.run(frames).hash).max() < 1e-5


def test_opset_20_and_other_backbones(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        RANDOM, backbone="vit_small_patch14_reg4_dinov2", image_size=56, stages=None, opset=20
    )
    done = export_bundle(settings, tmp_path / "dino.fgd")
    assert done.bundle.manifest.graph["opset"] == 20
    assert done.bundle.manifest.prefix_tokens == 5
    assert [stage.keep for stage in done.bundle.manifest.stages] == [8, 4, 1]


def test_authors_checkpoint_brings_everything(authors_checkpoint: Path, tmp_path: Path) -> None:
    told: list[str] = []
    done = export_bundle(
        ExportSettings(checkpoint=authors_checkpoint), tmp_path / "eet.fgd", notify=told.append
    )
    manifest = done.bundle.manifest
    assert (manifest.backbone, manifest.bits, manifest.image_size) == (TINY, 24, 224)
    assert [stage.keep for stage in manifest.stages] == [98, 49, 12]
    assert manifest.head == {"kind": "trained", "classes": 5}
    assert any(TINY in line for line in told)
    # The hash by hand: class head, then hash head, on the published network's CLS token.
    model = assemble(ExportSettings(checkpoint=authors_checkpoint))
    frames = _frames(3, 224)
    state = torch.load(authors_checkpoint, weights_only=True)["model"]
    embedding = model.deployed()(torch.tensor(frames))[2]
    logits = embedding @ state["module.head.weight"].T + state["module.head.bias"]
    hashes = logits @ state["module.head_hash.weight"].T + state["module.head_hash.bias"]
    with open_engine(done.bundle, "onnxruntime") as engine:
        assert np.abs(engine.run(frames).hash - hashes.detach().numpy()).max() < 1e-4
    assert isinstance(rebuild(done.bundle, authors_checkpoint), PyTorchEngine)


def test_logits_stay_when_asked_for(authors_checkpoint: Path, tmp_path: Path) -> None:
    settings = ExportSettings(checkpoint=authors_checkpoint, image_size=64, logits=True)
    told: list[str] = []
    done = export_bundle(settings, tmp_path / "eet.fgd", notify=told.append)
    assert any("position embedding of eet_authors.pth resized to 64 pixels" in t for t in told)
    with open_engine(done.bundle, "onnxruntime") as engine:
        logits = engine.run(_frames(2, 64)).logits
    assert logits is not None
    assert logits.shape == (2, 5)


def test_itq_head_is_fitted_on_the_train_split(tmp_path: Path) -> None:
    chooser = np.random.default_rng(0)
    lines = ["path,class,split"]
    for number in range(30):
        pixels = chooser.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,c{number % 3},{'train' if number < 20 else 'test'}")
    (tmp_path / "0.png").write_bytes(b"not an image")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    settings = dataclasses.replace(RANDOM, head="itq", bits=48, fit_data=tmp_path / "list.csv")
    done = export_bundle(settings, tmp_path / "itq.fgd")
    head = done.bundle.manifest.head
    assert head == {"kind": "itq", "seed": 0, "photos": 19, "skipped": 1}
    hasher = fgdeploy.load(done.bundle.path)
    codes = hasher.encode([tmp_path / f"{n}.png" for n in range(1, 20)])
    balance = np.unpackbits(codes, axis=1, count=48).mean(axis=0)
    assert abs(balance.mean() - 0.5) < 0.1  # centred on the fitting photos
    rebuilt = rebuild(done.bundle, None)
    frames = _frames(2, 64)
    assert np.abs(rebuilt.run(frames).hash - hasher.engine.run(frames).hash).max() < 1e-5


def test_a_head_is_never_fitted_on_a_list_without_a_train_split(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,class,split\na.png,c,test\n")
    settings = dataclasses.replace(RANDOM, head="itq", fit_data=tmp_path / "list.csv")
    with pytest.raises(DataError, match=r"no photos of split 'train'; the list has test"):
        export_bundle(settings, tmp_path / "x.fgd")
    assert not (tmp_path / "x.fgd").exists()


def test_the_fingerprint_covers_what_no_weight_shows(random_export: Exported) -> None:
    model = assemble(RANDOM)
    stages = random_export.bundle.manifest.stages
    weights = random_export.bundle.manifest.weights["sha256"]
    same = exporter._fingerprint(model, stages, weights)
    assert same == random_export.bundle.manifest.fingerprint
    for other in (
        dataclasses.replace(model, backbone="one_of_more_heads"),
        dataclasses.replace(
            model, preprocess=dataclasses.replace(model.preprocess, interpolation="bicubic")
        ),
    ):
        assert exporter._fingerprint(other, stages, weights) != same
    assert exporter._fingerprint(model, stages[:-1], weights) != same


def test_a_graph_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_HASH_DIFF", 0.0)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*nothing was written"):
        export_bundle(RANDOM, tmp_path / "bad.fgd")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_wrong_numbers_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = graph.write_onnx

    def sabotage(*arguments: object) -> graph.GraphFacts:
        facts = original(*arguments)  # type: ignore[arg-type]
        path = arguments[2]
        proto = onnx.load(str(path))
        for tensor in proto.graph.initializer:
            if list(tensor.dims) == [64, 192]:  # the first block's q, k and v
                values = onnx.numpy_helper.to_array(tensor) * 1.05
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
                break
        onnx.save(proto, str(path))
        return facts

    monkeypatch.setattr(graph, "write_onnx", sabotage)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*try another --opset"):
        export_bundle(RANDOM, tmp_path / "bad.fgd")
    assert list(tmp_path.iterdir()) == []


def test_a_near_tie_is_told_from_a_wrong_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MAX_HASH_DIFF", 1e-12)  # below what float32 can keep
    with pytest.raises(ExportError, match=r"own float32 and float64 differ by .*--seed"):
        export_bundle(RANDOM, tmp_path / "bad.fgd")


@pytest.mark.parametrize(
    ("change", "kind", "pattern"),
    [
        ({"bits": 4}, UsageError, "8 to 512 bits, not 4"),
        ({"bits": 513}, UsageError, "8 to 512 bits, not 513"),
        ({"method": "nope"}, UsageError, "no method 'nope' yet; choose eet"),
        ({"head": "magic"}, UsageError, "--head 'magic': choose"),
        ({"weights": "hope"}, UsageError, "--weights 'hope': choose pretrained or random"),
        ({"opset": 21}, UsageError, "--opset 21: choose 18 to 20"),
        ({"crop": 0.0}, UsageError, "--crop 0.0: expected"),
        ({"seed": -1}, UsageError, "--seed -1"),
        ({"head": "itq"}, UsageError, "--head itq is fitted on photos.*--fit-data"),
        ({"head": "trained"}, CheckpointError, "trained head needs a --checkpoint"),
        ({"without": frozenset({"speed"})}, UsageError, "--without speed: choose from early"),
        ({"logits": True}, UsageError, "--logits needs the trained head"),
        ({"stages": (Stage(2, 17),)}, StageError, "keeps 17 patch tokens, but 16 arrive"),
        ({"stages": (Stage(6, 3),)}, StageError, "below 6"),
        ({"fit_data": Path("nowhere")}, DataError, "no folder, image or CSV at nowhere"),
        ({"checkpoint": Path("none.pth")}, CheckpointError, "no checkpoint at none.pth"),
    ],
)
def test_bad_settings(
    tmp_path: Path, change: dict[str, object], kind: type[FgdeployError], pattern: str
) -> None:
    with pytest.raises(kind, match=pattern) as caught:
        export_bundle(dataclasses.replace(RANDOM, **change), tmp_path / "x.fgd")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_bits_that_do_not_match(authors_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"--bits 32 does not match .* has 24 bits"):
        export_bundle(ExportSettings(checkpoint=authors_checkpoint, bits=32), tmp_path / "x.fgd")
    state = torch.load(authors_checkpoint, weights_only=True)["model"]
    torch.save({**state, "module.head.extra": torch.zeros(3)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match=r"more.pth has head.extra beside its class and hash"):
        export_bundle(ExportSettings(checkpoint=tmp_path / "more.pth"), tmp_path / "x.fgd")
    other = {k.replace("hash.", "hash.0."): v for k, v in state.items()}
    torch.save(other, tmp_path / "sequence.pth")
    with pytest.raises(CheckpointError, match=r"has head_hash.0.weight but no head_hash.weight"):
        export_bundle(ExportSettings(checkpoint=tmp_path / "sequence.pth"), tmp_path / "x.fgd")
    state["module.head_hash.weight"] = torch.zeros(24, 9)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(
        CheckpointError, match=r"head_hash takes 9 inputs, but head gives 5 classes"
    ):
        export_bundle(ExportSettings(checkpoint=tmp_path / "odd.pth"), tmp_path / "x.fgd")
    del state["module.head_hash.bias"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=r"half.pth lacks head_hash.bias"):
        export_bundle(ExportSettings(checkpoint=tmp_path / "half.pth"), tmp_path / "x.fgd")


def test_targets(random_export: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name ends in \.fgd"):
        export_bundle(RANDOM, tmp_path / "model")
    with pytest.raises(BundleError, match=r"no folder .*gone.* create it"):
        export_bundle(RANDOM, tmp_path / "gone" / "x.fgd")
    (tmp_path / "mine.fgd").mkdir()
    (tmp_path / "mine.fgd" / "thesis.txt").write_text("dear")
    with pytest.raises(BundleError, match="there already; pass --overwrite"):
        export_bundle(RANDOM, tmp_path / "mine.fgd")
    with pytest.raises(BundleError, match="is no bundle, so it is not overwritten"):
        export_bundle(RANDOM, tmp_path / "mine.fgd", overwrite=True)
    assert (tmp_path / "mine.fgd" / "thesis.txt").read_text() == "dear"


def test_overwriting_replaces_only_when_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.fgd"
    export_bundle(RANDOM, target)
    before = (target / "manifest.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(verify, "MAX_HASH_DIFF", 0.0)
        with pytest.raises(ExportError):
            export_bundle(RANDOM, target, overwrite=True)
    assert (target / "manifest.json").read_text() == before
    export_bundle(dataclasses.replace(RANDOM, bits=16), target, overwrite=True)
    assert open_bundle(target).manifest.bits == 16
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.fgd"]


def test_rebuilding_from_other_weights_is_refused(authors_checkpoint: Path, tmp_path: Path) -> None:
    done = export_bundle(
        ExportSettings(checkpoint=authors_checkpoint, image_size=64), tmp_path / "x.fgd"
    )
    with pytest.raises(UsageError, match=r"--checkpoint eet_authors.pth"):
        rebuild(done.bundle, None)
    content = torch.load(authors_checkpoint, weights_only=True)
    content["model"]["module.norm.bias"] += 0.1
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ExportError, match=r"other weights than x\.fgd was exported from"):
        rebuild(done.bundle, tmp_path / "other.pth")


def test_offline_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        CheckpointError, match=r"network.*--checkpoint FILE.*--weights random"
    ) as caught:
        export_bundle(dataclasses.replace(RANDOM, weights="pretrained"), tmp_path / "x.fgd")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.fgd").exists()


def test_manifest_is_plain_json(random_export: Exported) -> None:
    text = (random_export.bundle.path / "manifest.json").read_text(encoding="utf-8")
    entry = json.loads(text)
    assert entry["schema_version"] == 1
    assert entry["grid"] == [4, 4]
