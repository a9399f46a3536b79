"""What this machine can run, and what is missing, without importing any of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

# package -> (extra that brings it, what it is for)
_PACKAGES: dict[str, tuple[str, str]] = {
    "onnxruntime": ("cpu", "run on the CPU; prove exports"),
    "openvino": ("cpu", "run on Intel and AMD CPUs"),
    "onnxruntime-gpu": ("gpu", "run on NVIDIA GPUs through CUDA"),
    "tensorrt": ("tensorrt", "compile for Jetson and datacenter GPUs"),
    "pycuda": ("tensorrt", "run TensorRT engines"),
    "tensorrt-rtx": ("tensorrt-rtx", "compile for RTX GPUs"),
    "torch": ("export", "export and train"),
    "timm": ("export", "export and train"),
    "onnx": ("export", "export"),
    "onnxscript": ("export", "export"),
    "safetensors": ("export", "read checkpoints"),
    "torchvision": ("train", "augment photos"),
    "matplotlib": ("train", "draw precision-recall curves"),
    "scipy": ("train", "read Stanford Cars"),
}


@dataclass(frozen=True)
class Package:
    """A package, its version (None if it is not installed), its use and the extra to install."""

    name: str
    version: str | None
    purpose: str
    extra: str


@dataclass(frozen=True)
class Machine:
    """This machine as far as deployment cares. memory_gib is None where the system does not say."""

    python: str
    system: str
    cpu: str
    cores: int
    memory_gib: float | None
    cpu_features: list[str]
    nvidia_driver: str | None
    packages: list[Package]
    engines: list[str]
    can_export: bool


def examine() -> Machine:
    """Return what this machine has."""
    from fgdeploy.engines import available

    packages = [
        Package(name, _version(name), purpose, extra)
        for name, (extra, purpose) in _PACKAGES.items()
    ]
    held = {package.name for package in packages if package.version}
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_gib=_memory_gib(),
        cpu_features=_cpu_features(),
        nvidia_driver=_nvidia_driver(),
        packages=packages,
        engines=available(),
        can_export={"torch", "timm", "onnx", "onnxscript"} <= held
        and bool({"onnxruntime", "onnxruntime-gpu"} & held),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    """Return the vector extensions that INT8, BF16 and Hamming kernels gain from."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    wanted = "avx2 avx512f avx512_vnni avx_vnni avx512_bf16 amx_int8 amx_bf16 avx512_vpopcntdq "
    return [name for name in (wanted + "asimd asimddp i8mm bf16").split() if name in flags]


def _memory_gib() -> float | None:
    if sys.platform == "win32":
        return None
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _nvidia_driver() -> str | None:
    """Return the loaded NVIDIA driver's version; Jetsons report their L4T release."""
    for place in ("/sys/module/nvidia/version", "/etc/nv_tegra_release"):
        try:
            return Path(place).read_text(encoding="utf-8").splitlines()[0].strip()
        except (OSError, IndexError):
            continue
    return None
