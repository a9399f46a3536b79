"""What this machine is: CPU, usable cores, memory, NVIDIA GPUs. Never raises."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

# The vector extensions that INT8, BF16 and Hamming kernels gain from.
_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("avx512_vpopcntdq", "asimd", "asimddp", "i8mm", "bf16"),
)
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cpu:
    """A processor: its name, architecture (x86_64, aarch64) and vector extensions."""

    name: str
    arch: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU. compute_capability: such as "8.7"; driver: its release in words."""

    name: str
    compute_capability: str
    memory_mib: int
    driver: str


def cpu() -> Cpu:
    """Return the processor."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return Cpu(name, platform.machine(), tuple(item for item in _FEATURES if item in flags))


def cores() -> int:
    """Return the cores that this process may use: affinity and cgroup quota, rounded up."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = min(count, len(os.sched_getaffinity(0)))
    return max(1, math.ceil(min(count, _quota())))


def memory_gib() -> float | None:
    """Return the machine's memory, or None where the system does not say."""
    if sys.platform == "win32":
        return None
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def file_limit() -> int | None:
    """Return the bytes that the system lets a file have here (ulimit -f), None for any number."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def peak_memory_mib() -> float:
    """Return the most memory that this process has held so far, in MiB; 0 where nobody knows."""
    # getrusage's peak outlives exec: in a child it may be the parent's.
    line = _field("/proc/self/status", "VmHWM").split()
    if line and line[0].isdigit():
        return int(line[0]) / 1024
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def nvidia_driver() -> str | None:
    """Return the loaded NVIDIA driver's version; Jetsons report their L4T release."""
    for place in ("/sys/module/nvidia/version", "/etc/nv_tegra_release"):
        lines = _text(Path(place)).splitlines()
        if lines:
            return lines[0].strip()
    return None


def gpus() -> list[Gpu]:
    """Return the GPUs that CUDA sees here, in its order; none without a driver. Looked up once."""
    return list(_gpus())


@functools.cache
def _gpus() -> tuple[Gpu, ...]:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    return tuple(read_cuda(library))


def read_cuda(library: Any) -> list[Gpu]:
    """Return the GPUs that a CUDA driver library reports, none if any call fails.

    Creates no context: that would take GPU memory and get in the way of engines.
    """
    try:
        _call(library.cuInit, 0)
        count, version = ctypes.c_int(), ctypes.c_int()
        _call(library.cuDeviceGetCount, ctypes.byref(count))
        _call(library.cuDriverGetVersion, ctypes.byref(version))
        cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
        return [_gpu(library, index, nvidia_driver() or cuda) for index in range(count.value)]
    except (OSError, AttributeError):  # a code that is no success; a function that is not there
        return []


def _gpu(library: Any, index: int, driver: str) -> Gpu:
    device, value = ctypes.c_int(), ctypes.c_int()
    _call(library.cuDeviceGet, ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    _call(library.cuDeviceGetName, name, len(name), device)
    capability = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        _call(library.cuDeviceGetAttribute, ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    total = ctypes.c_size_t()
    _call(library.cuDeviceTotalMem_v2, ctypes.byref(total), device)
    text = name.value.decode("utf-8", errors="replace")
    return Gpu(text, ".".join(capability), total.value >> 20, driver)


def _call(function: Any, *arguments: Any) -> None:
    code = function(*arguments)
    if code:
        raise OSError(code, "CUDA driver error")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(place: str, key: str) -> str:
    """Return what follows `key...:` on the first such line of a file."""
    lines = _text(Path(place)).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _cpuinfo(key: str) -> str:
    return _field("/proc/cpuinfo", key)


def _quota() -> float:
    """Return the smallest CPU quota on the way up the cgroup tree, in cores; inf without one."""
    limits = [math.inf]
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        inside = PurePath(place.strip("/"))
        for folder in (inside, *inside.parents):
            if not controllers:  # version 2
                limits.append(_ratio(_text(_CGROUPS / folder / "cpu.max").split()))
            elif "cpu" in controllers.split(","):
                texts = [
                    _text(_CGROUPS / "cpu" / folder / name)
                    for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                ]
                limits.append(_ratio(texts))
    return min(limits)


def _ratio(texts: list[str]) -> float:
    with contextlib.suppress(ValueError, ZeroDivisionError):  # "max", no such file, no quota (-1)
        quota, period = map(int, texts)
        return quota / period if quota > 0 else math.inf
    return math.inf
