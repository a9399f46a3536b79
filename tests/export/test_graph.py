"""The deployed graph: its contract, its nodes' names, and every way of making it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fgdeploy.core.codes import code_bytes
from fgdeploy.core.errors import StageError
from fgdeploy.engines import open_engine
from fgdeploy.export import graph
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import Exported, export_bundle, rebuild
from fgdeploy.models import assembly
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.network import Network
from tests.checks import refused
from tests.export.small import NAMES, RANDOM, frames_of


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
    assert ops.count("TopK") == 2 * 3  # the cut, and where those that stay are
    assert ops.count("LayerNormalization") == 13
    assert not graph._DYNAMIC_OPS & set(ops)
    assert ops[0] == "Cast" or "Transpose" not in ops[: ops.index("Cast")]
    constants = {i.name for i in proto.graph.initializer}
    assert all(n.input[1] in constants for n in proto.graph.node if n.op_type == "TopK")
    assert {entry.domain for entry in proto.opset_import} <= {"", "ai.onnx"}


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_onnx_equals_pytorch(random_export: Exported, batch: int) -> None:
    bundle = random_export.bundle
    frames = frames_of(batch, 64)
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


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_each_simplification_can_be_left_out(
    random_export: Exported, tmp_path: Path, name: str
) -> None:
    names = frozenset(NAMES if name == "all" else [name])
    plain = export_bundle(dataclasses.replace(RANDOM, without=names), tmp_path / "plain.fgd")
    assert plain.bundle.manifest.fingerprint == random_export.bundle.manifest.fingerprint
    frames = frames_of(4, 64)
    with (
        open_engine(plain.bundle, "onnxruntime") as one,
        open_engine(random_export.bundle, "onnxruntime") as two,
    ):
        assert np.abs(one.run(frames).hash - two.run(frames).hash).max() < 1e-5


def test_logits_stay_when_asked_for(authors_checkpoint: Path, tmp_path: Path) -> None:
    settings = ExportSettings(checkpoint=authors_checkpoint, image_size=64, logits=True)
    told: list[str] = []
    done = export_bundle(settings, tmp_path / "eet.fgd", notify=told.append)
    assert any("position embedding of eet_authors.pth resized to 64 pixels" in t for t in told)
    with open_engine(done.bundle, "onnxruntime") as engine:
        logits = engine.run(frames_of(2, 64)).logits
    assert logits is not None
    assert logits.shape == (2, 5)


def test_nodes_are_named_after_their_modules(random_export: Exported) -> None:
    proto = onnx.load(str(random_export.bundle.graph()))
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    modules = {name.rpartition("/")[0] for name in names}
    assert {"blocks.0.mlp.fc1", "blocks.1.attn.qkv", "steps.2.select", "norm", "pack"} <= modules
    assert not any(name.startswith(("network.", "encoder.", "vit.", "walk.")) for name in names)
    topk = {node.name for node in proto.graph.node if node.op_type == "TopK"}
    assert {name.rpartition("/")[0] for name in topk} == {
        f"steps.{number}.select" for number in (2, 4, 5)
    }


def test_notes_are_kept_in_the_file(random_export: Exported) -> None:
    proto = onnx.load(str(random_export.bundle.graph()))
    held = {entry.key: entry.value for entry in proto.metadata_props}
    assert held.pop("fgdeploy.fingerprint") == random_export.bundle.manifest.fingerprint
    patterns = {name: json.loads(held[name]) for name in ("fgdeploy.pins", "fgdeploy.half")}
    assert patterns == {"fgdeploy.pins": ["steps.*.select/*"], "fgdeploy.half": []}


@pytest.mark.parametrize("bits", [8, 12, 13, 64, 65])
def test_codes_are_packed_as_numpy_packs_them(bits: int) -> None:
    hashes = torch.randn(50, bits, generator=torch.Generator().manual_seed(bits))
    hashes[0] = 0.0  # no bit is set where nothing is above zero
    packed = graph.CodePacker(bits)(hashes)
    assert packed.dtype == torch.uint8 and packed.shape == (50, code_bytes(bits))
    np.testing.assert_array_equal(packed.numpy(), np.packbits(hashes.numpy() > 0, axis=1))
    assert torch.equal(graph.CodePacker(bits).double()(hashes.double()), packed)


class _Boxed(Encoder):
    """Gives a box of the method's own beside its embedding."""

    def forward(self, pixels: torch.Tensor, observers: object = ()) -> Features:
        """Return the features with the box."""
        found = super().forward(pixels)
        return Features(found.embedding, {"box": found.embedding[:, :8].reshape(-1, 2, 4)})


def test_a_method_s_own_outputs_follow_the_others(tmp_path: Path) -> None:
    chosen = assembly.choose(RANDOM.network())
    plain = chosen.encoder()
    head = ClassHashHead.fresh(64, 5, 16)
    network = Network(_Boxed(plain.vit, chosen.norm), head).eval().requires_grad_(False)
    module = graph.DeployGraph(network.deployed(logits=True), ("logits", "box"))
    assert module.output_names() == ["code", "hash", "embedding", "logits", "box"]
    facts = graph.write_onnx(module, 64, tmp_path / "m.onnx", 18, {"a": "b"})
    assert {name: tuple(one["shape"][1:]) for name, one in facts.outputs.items()} == {
        "code": (2,),
        "hash": (16,),
        "embedding": (64,),
        "logits": (5,),
        "box": (2, 4),
    }
    assert {one["type"] for one in facts.outputs.values()} == {"uint8", "float32"}
    assert facts.inputs == {"frames": ["batch", 64, 64, 3]}
    assert (facts.opset, facts.ops["LayerNormalization"]) == (18, 13)
    assert len(facts.nodes) == sum(facts.ops.values())


class _Refusing(Encoder):
    """Finds out while it runs that its options cannot be."""

    def forward(self, pixels: torch.Tensor, observers: object = ()) -> Features:
        """Raise an error for the user."""
        raise StageError("clr=3: only 2 rows left")


def test_an_error_for_the_user_is_told_as_it_is(tmp_path: Path) -> None:
    chosen = assembly.choose(RANDOM.network())
    network = Network(_Refusing(chosen.encoder().vit, chosen.norm), ClassHashHead.fresh(64, 5, 16))
    module = graph.DeployGraph(network.eval().requires_grad_(False).deployed())
    with refused(StageError, "^clr=3: only 2 rows left$"):
        graph.write_onnx(module, 64, tmp_path / "m.onnx", 18)
    assert not list(tmp_path.iterdir())
