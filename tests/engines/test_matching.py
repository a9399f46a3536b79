from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core.machine import Cpu, Gpu
from fgdeploy.engines import Record
from fgdeploy.engines.matching import mismatches

HERE = Cpu("Some CPU", "x86_64", ("avx2", "avx512_vnni"))
ORIN = Gpu("NVIDIA Orin", "8.7", 7000, "R36")
H200 = Gpu("NVIDIA H200", "9.0", 140_000, "580")
RTX = Gpu("NVIDIA GeForce RTX 3060", "8.6", 12_000, "580")


@pytest.fixture
def bundle(toy_bundle: Path) -> Bundle:
    return open_bundle(toy_bundle)


def cpu_engine(bundle: Bundle, **changes: Any) -> Record:
    entry = Record(
        backend="openvino",
        precision="fp32",
        file="engine.blob",
        sha256="ab" * 32,
        bytes=10,
        graph="fp32",
        graph_sha256=bundle.manifest.files["model.onnx"]["sha256"],
        backend_version="2026.4.1",
        device={"kind": "cpu", "name": "other", "arch": "x86_64", "features": list(HERE.features)},
        batches=(1, 8),
        flags={},
        build_s=1.5,
        peak_host_mib=300.0,
        created_by="test",
    )
    return dataclasses.replace(entry, **changes)


def gpu_engine(bundle: Bundle, gpu: Gpu = ORIN, **changes: Any) -> Record:
    device = {"kind": "cuda", "name": gpu.name, "compute_capability": gpu.compute_capability}
    return cpu_engine(
        bundle,
        backend="tensorrt",
        backend_version="10.3.0",
        device={**device, "driver": "another"},
        **changes,
    )


def test_the_same_machine(bundle: Bundle) -> None:
    assert mismatches(cpu_engine(bundle), bundle, "2026.4.1", HERE, []) == []
    assert mismatches(cpu_engine(bundle), bundle, "2026.4.1-22982", HERE, [ORIN]) == []
    # Another driver is no mismatch
    assert mismatches(gpu_engine(bundle), bundle, "10.3.0.26", HERE, [ORIN, H200]) == []


def test_another_cpu(bundle: Bundle) -> None:
    def here(**changes: Any) -> list[str]:
        cpu = dataclasses.replace(HERE, **changes)
        return mismatches(cpu_engine(bundle), bundle, "2026.4.1", cpu, [])

    assert here(name="a faster one") == []
    assert here(arch="aarch64") == ["built on a x86_64 CPU, this machine is aarch64"]
    assert here(features=("avx2",)) == ["built on a CPU with avx512_vnni, which this one lacks"]
    assert here(features=(*HERE.features, "amx_int8")) == [
        "built on a CPU without amx_int8, which this one has"
    ]


def test_another_version(bundle: Bundle) -> None:
    entry = gpu_engine(bundle)
    assert mismatches(entry, bundle, "10.7.0", HERE, [ORIN]) == [
        "built for TensorRT 10.3.0, this machine has 10.7.0"
    ]
    assert mismatches(entry, bundle, None, HERE, [ORIN]) == [
        "built for TensorRT 10.3.0, which is not installed here"
    ]


def test_another_gpu(bundle: Bundle) -> None:
    entry = gpu_engine(bundle)
    assert mismatches(entry, bundle, "10.3.0", HERE, []) == ["this machine has no NVIDIA GPU"]
    assert mismatches(entry, bundle, "10.3.0", HERE, [H200]) == [
        "built for NVIDIA Orin (compute capability 8.7), this machine has NVIDIA H200 (9.0)"
    ]
    twin = dataclasses.replace(ORIN, name="NVIDIA Orin Nano")
    assert len(mismatches(entry, bundle, "10.3.0", HERE, [twin])) == 1


def test_hardware_compatible(bundle: Bundle) -> None:
    entry = gpu_engine(bundle, RTX, flags={"hardware_compatible": True})
    assert mismatches(entry, bundle, "10.3.0", HERE, [H200]) == []
    old = dataclasses.replace(RTX, name="old", compute_capability="7.5")
    assert len(mismatches(entry, bundle, "10.3.0", HERE, [old])) == 1


def test_compiled_elsewhere(bundle: Bundle) -> None:
    device = {"kind": "cuda", "name": None, "compute_capabilities": ["8.6", "8.9"]}
    entry = cpu_engine(bundle, backend="tensorrt-rtx", device=device)
    assert mismatches(entry, bundle, "2026.4.1", HERE, [RTX]) == []
    assert mismatches(entry, bundle, "2026.4.1", HERE, [H200]) == [
        "built for compute capabilities 8.6, 8.9, this machine has NVIDIA H200 (9.0)"
    ]


def test_another_graph(bundle: Bundle) -> None:
    assert mismatches(cpu_engine(bundle, graph_sha256="0" * 64), bundle, "2026.4.1", HERE, []) == [
        "built from another model.onnx (the bundle was exported again since)"
    ]
    for graph in ("int8", "none"):
        assert mismatches(cpu_engine(bundle, graph=graph), bundle, "2026.4.1", HERE, []) == [
            f"built from a {graph} graph, which the bundle does not hold"
        ]


def test_all_is_said_at_once(bundle: Bundle) -> None:
    entry = gpu_engine(bundle, graph_sha256="0" * 64)
    assert len(mismatches(entry, bundle, "11.0", HERE, [])) == 3
