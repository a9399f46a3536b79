"""Fixtures that several rooms share: a toy bundle made without torch."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.bundle import BlockRows, Manifest, Output, seal
from fgdeploy.bundle.fingerprint import fingerprint
from fgdeploy.photos.images import Preprocess

SIZE, WIDTH, BITS = 32, 8, 12


def write_toy_graph(target: Path, seed: int = 0, classes: int = 0) -> None:
    """Write a graph that keeps the contract: frames in; code, hash and embedding out.

    classes: how many it has `logits` for, random ones of the embedding.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    chooser = np.random.default_rng(seed)
    places = np.zeros((BITS, 2), np.float32)  # bit i is worth 2^(7 - i % 8) in byte i // 8
    places[np.arange(BITS), np.arange(BITS) // 8] = 2.0 ** (7 - np.arange(BITS) % 8)
    weights = {
        "middle": np.float32(127.5),
        "embed": chooser.standard_normal((8 * 8 * 3, WIDTH)).astype(np.float32) / 1000,
        "project": chooser.standard_normal((WIDTH, BITS)).astype(np.float32),
        "zero": np.float32(0),
        "places": places,
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["blocks"], kernel_shape=[4, 4], strides=[4, 4]
        ),
        helper.make_node("Flatten", ["blocks"], ["flat"]),
        helper.make_node("Sub", ["flat", "middle"], ["centred"]),
        helper.make_node("MatMul", ["centred", "embed"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "project"], ["hash"]),
        helper.make_node("Greater", ["hash", "zero"], ["set"]),
        helper.make_node("Cast", ["set"], ["bits"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["bits", "places"], ["bytes"]),
        helper.make_node("Cast", ["bytes"], ["code"], to=TensorProto.UINT8),
    ]
    value = helper.make_tensor_value_info
    further = []
    if classes:
        weights["tell"] = chooser.standard_normal((WIDTH, classes)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", ["embedding", "tell"], ["logits"]))
        further.append(value("logits", TensorProto.FLOAT, ["batch", classes]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [value("frames", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [
            value("code", TensorProto.UINT8, ["batch", 2]),
            value("hash", TensorProto.FLOAT, ["batch", BITS]),
            value("embedding", TensorProto.FLOAT, ["batch", WIDTH]),
            *further,
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    target.write_bytes(model.SerializeToString())


def toy_manifest(weights: str = "ab" * 32) -> Manifest:
    """Return the manifest of the toy graph, without files. weights: their sha256."""
    preprocess = Preprocess(SIZE, 36, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Manifest(
        method="toy",
        backbone="toy_patch16_32",
        image_size=SIZE,
        patch_size=16,
        grid=(2, 2),
        depth=2,
        width=WIDTH,
        prefix_tokens=1,
        bits=BITS,
        blocks=(BlockRows(1, 5, 5, 5, 3, 3), BlockRows(2, 3, 1, 3, 1, 1)),
        head={"kind": "lsh", "seed": 0},
        preprocess=preprocess,
        graph={"opset": 18},
        macs={"dense": 4, "published": 3, "exported": 2},
        weights={"source": "random", "sha256": weights, "seed": 0},
        fingerprint=fingerprint("toy", "toy_patch16_32", {}, preprocess, weights),
        created_by="tests",
        options={"stages": [[1, 2]]},
        outputs={
            "code": Output("uint8", (2,)),
            "hash": Output("float32", (BITS,)),
            "embedding": Output("float32", (WIDTH,)),
        },
    )


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verified 12-bit bundle for 32-pixel frames, the same for all tests: do not write into it.

    Its graph is a seeded random projection of 4x4 block means; its `code` is the packed `hash`.
    """
    folder = tmp_path_factory.mktemp("bundles") / "toy.fgd"
    folder.mkdir()
    write_toy_graph(folder / "model.onnx")
    seal(folder, toy_manifest())
    return folder


@pytest.fixture(scope="session")
def naming_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle with logits for six classes, `kind 0` to `kind 5`: do not write into it."""
    folder = tmp_path_factory.mktemp("bundles") / "naming.fgd"
    folder.mkdir()
    write_toy_graph(folder / "model.onnx", classes=6)
    plain = toy_manifest()
    outputs = {**plain.outputs, "logits": Output("float32", (6,))}
    names = tuple(f"kind {number}" for number in range(6))
    seal(folder, dataclasses.replace(plain, outputs=outputs, classes=names))
    return folder


@pytest.fixture
def own_bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the toy bundle that the test may damage."""
    return Path(shutil.copytree(toy_bundle, tmp_path / "own.fgd"))
