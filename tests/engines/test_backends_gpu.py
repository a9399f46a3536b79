"""Engines on an NVIDIA GPU; skipped by name where there is none."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import BACKENDS, BuildSettings, available, build, open_engine
from fgdeploy.engines.backends import engine_type
from fgdeploy.proof.parity import compare
from tests.checks import refused

pytestmark = pytest.mark.gpu
GPU_BACKENDS = [name for name, entry in BACKENDS.items() if entry.gpu]
BATCHES = (1, 4, 8)


@pytest.fixture(params=GPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not machine.gpus():
        pytest.skip("needs an NVIDIA GPU")
    if name not in available():
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def bundle(own_bundle: Path) -> Bundle:
    return open_bundle(own_bundle)


def frames(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_builds_and_agrees_with_the_cpu(bundle: Bundle, backend: str) -> None:
    build(bundle, backend, "fp32", BuildSettings(batches=BATCHES))
    with open_engine(bundle, "onnxruntime:fp32") as cpu, open_engine(bundle, backend) as gpu:
        assert "compiled here" in gpu.describe()
        for count in range(1, 9):
            left, right = cpu.run(frames(count, count)), gpu.run(frames(count, count))
            parity = compare(left.hash, left.code, right.hash, right.code)
            # TF32 keeps ten bits of a mantissa
            assert parity.max_hash_diff < 5e-2 and parity.min_cosine > 0.999
            assert parity.bit_agreement > 0.95


def test_a_batch_above_the_profile(bundle: Bundle, backend: str) -> None:
    build(bundle, backend, "fp32", BuildSettings(batches=BATCHES))
    with open_engine(bundle, backend) as engine:
        if engine.max_batch is None:
            pytest.skip(f"{backend} takes any batch")
        with refused(EngineError, r"built for batches of 1 to 8, got 12 frames; .* 1,8,12$"):
            engine.run(frames(12))
        engine.run(frames(8))


def test_cuda_graphs_change_nothing(
    bundle: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = engine_type(backend)
    if not hasattr(kind, "cuda_graphs"):
        pytest.skip(f"{backend} has no CUDA graphs of ours")
    build(bundle, backend, "fp32", BuildSettings(batches=BATCHES))
    with open_engine(bundle, backend) as engine:
        with_graphs = [engine.run(frames(count)).hash for count in (1, 8, 4, 3, 8)]
    monkeypatch.setattr(kind, "cuda_graphs", False)
    with open_engine(bundle, backend) as engine:
        assert "no CUDA graphs" in engine.describe()
        without = [engine.run(frames(count)).hash for count in (1, 8, 4, 3, 8)]
    for left, right in zip(with_graphs, without, strict=True):
        np.testing.assert_array_equal(left, right)


def test_two_threads(bundle: Bundle, backend: str) -> None:
    build(bundle, backend, "fp32", BuildSettings(batches=BATCHES))
    with open_engine(bundle, backend) as engine, ThreadPoolExecutor(2) as pool:
        expected = [engine.run(frames(4, seed)).hash for seed in range(16)]
        found = list(pool.map(lambda seed: engine.run(frames(4, seed)).hash, range(16)))
    for left, right in zip(expected, found, strict=True):
        np.testing.assert_array_equal(left, right)


def test_opened_again_and_again(bundle: Bundle, backend: str) -> None:
    build(bundle, backend, "fp32", BuildSettings(batches=BATCHES))
    results = []
    for _ in range(3):
        with open_engine(bundle, backend) as engine:
            results.append(engine.run(frames(2)).hash)
    np.testing.assert_array_equal(results[0], results[2])


def test_an_engine_of_another_gpu(bundle: Bundle, backend: str) -> None:
    built = build(bundle, backend, "fp32")
    assert built.record is not None
    device = {**built.record.device, "name": "NVIDIA Orin", "compute_capability": "8.7"}
    dataclasses.replace(built.record, device=device).write(built.folder)
    with refused(EngineError, r"built for NVIDIA Orin \(compute capability 8\.7\), this machine"):
        open_engine(bundle, backend)
