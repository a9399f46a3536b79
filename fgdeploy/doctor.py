"""What this machine can run, and what is missing, without importing any of it."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass

from fgdeploy.core import machine
from fgdeploy.core.machine import Gpu

# package -> (extra that brings it, what it is for)
_PACKAGES: dict[str, tuple[str, str]] = {
    "onnxruntime": ("cpu", "run on the CPU; prove exports"),
    "openvino": ("cpu", "run on Intel and AMD CPUs"),
    "onnxruntime-gpu": ("gpu", "run on NVIDIA GPUs through CUDA"),
    "tensorrt": ("tensorrt", "compile for Jetson and datacenter GPUs"),
    "tensorrt-rtx": ("tensorrt-rtx", "compile for RTX GPUs"),
    "cuda-bindings": ("tensorrt", "run TensorRT and TensorRT-RTX engines"),
    "numba": ("search", "search large galleries about ten times faster"),
    "psycopg": ("postgres", "keep and search galleries in PostgreSQL"),
    "torch": ("export", "export and train"),
    "timm": ("export", "export and train"),
    "onnx": ("calibrate", "export and calibrate"),
    "onnxscript": ("export", "export"),
    "safetensors": ("export", "read checkpoints"),
    "torchvision": ("train", "augment photos"),
    "matplotlib": ("train", "draw precision-recall curves"),
    "scipy": ("train", "read Stanford Cars"),
    "transformers": ("detect", "find objects in photos"),
    "tritonclient": ("triton", "write for Triton, ask it"),
    "model-signing": ("sign", "sign bundles, and take only their owner's"),
    "huggingface-hub": ("hub", "pull bundles from a model hub, and push them"),
    "pyopenssl": ("sign", "sign bundles, and take only their owner's"),
}

# What onnxruntime-gpu loads, in NVIDIA's wheels.
_CUDA_WHEELS = (
    *("nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-curand"),
    *("nvidia-cufft", "nvidia-cuda-nvrtc"),
)


@dataclass(frozen=True)
class Package:
    """A package, its version (None if it is not installed), its use and the extra to install."""

    name: str
    version: str | None
    purpose: str
    extra: str


@dataclass(frozen=True)
class Machine:
    """This machine as far as deployment cares. memory_gib is None where the system does not say.

    cuda_missing: wheels that onnxruntime-gpu needs and are not installed; empty without it.
    """

    python: str
    system: str
    cpu: str
    cores: int
    memory_gib: float | None
    cpu_features: list[str]
    nvidia_driver: str | None
    gpus: list[Gpu]
    packages: list[Package]
    engines: list[str]
    can_export: bool
    cuda_missing: list[str]


def examine() -> Machine:
    """Return what this machine has."""
    from fgdeploy.engines import available

    packages = [
        Package(name, _version(name), purpose, extra)
        for name, (extra, purpose) in _PACKAGES.items()
    ]
    cpu = machine.cpu()
    held = {package.name for package in packages if package.version}
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu.name,
        cores=machine.cores(),
        memory_gib=machine.memory_gib(),
        cpu_features=list(cpu.features),
        nvidia_driver=machine.nvidia_driver(),
        gpus=machine.gpus(),
        packages=packages,
        engines=available(),
        can_export={"torch", "timm", "onnx", "onnxscript"} <= held
        and bool({"onnxruntime", "onnxruntime-gpu"} & held),
        cuda_missing=[name for name in _CUDA_WHEELS if _version(name) is None]
        if "onnxruntime-gpu" in held
        else [],
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
