from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fgdeploy.core import machine
from fgdeploy.core.machine import Gpu


def with_files(monkeypatch: pytest.MonkeyPatch, texts: dict[str, str]) -> None:
    """Let the system hold these files, and no others below /proc and /sys."""
    read_text = Path.read_text

    def read(self: Path, *arguments: Any, **named: Any) -> str:
        if str(self) in texts:
            return texts[str(self)]
        if str(self).startswith(("/proc", "/sys", "/etc/nv")):
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return read_text(self, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", read)


def test_this_machine() -> None:
    assert machine.cpu().name and machine.cpu().arch
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert machine.peak_memory_mib() > 1
    assert all(isinstance(gpu, Gpu) for gpu in machine.gpus())


V2 = {"/proc/self/cgroup": "0::/user.slice/camera\n"}
V1 = {"/proc/self/cgroup": "4:memory:/x\n3:cpuacct,cpu:/docker/1\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({**V2, "/sys/fs/cgroup/user.slice/camera/cpu.max": "150000 100000\n"}, 2),
        ({**V2, "/sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n"}, 3),
        ({**V2, "/sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({**V2, "/sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ({**V2, "/sys/fs/cgroup/cpu.max": "900000 0\n"}, 8),
        ({**V2, "/sys/fs/cgroup/cpu.max": "garbage"}, 8),
        (
            {
                **V1,
                "/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "250000\n",
                "/sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                **V1,
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        ({"/proc/self/cgroup": "nonsense\n\n0\n"}, 8),
    ],
)
def test_usable_cores(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_files(monkeypatch, files)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.cores() == expected


def test_peak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_files(monkeypatch, {"/proc/self/status": "VmPeak:\t  99 kB\nVmHWM:\t  2048 kB\n"})
    assert machine.peak_memory_mib() == 2
    with_files(monkeypatch, {})
    assert machine.peak_memory_mib() > 1  # from getrusage


# --- GPUs, from a driver library that is not there


class Driver:
    """A CUDA driver with one GPU; `broken` names a function that fails."""

    def __init__(self, broken: str = "", count: int = 1) -> None:
        self.broken, self.count = broken, count

    def __getattr__(self, name: str) -> Callable[..., int]:
        answers: dict[str, Callable[..., None]] = {
            "cuInit": lambda flags: None,
            "cuDeviceGetCount": lambda out: _put(out, ctypes.c_int, self.count),
            "cuDriverGetVersion": lambda out: _put(out, ctypes.c_int, 12060),
            "cuDeviceGet": lambda out, index: _put(out, ctypes.c_int, index),
            "cuDeviceGetName": lambda name, size, device: setattr(name, "value", b"NVIDIA Orin"),
            "cuDeviceGetAttribute": lambda out, which, device: _put(
                out, ctypes.c_int, {75: 8, 76: 7}[which]
            ),
            "cuDeviceTotalMem_v2": lambda out, device: _put(out, ctypes.c_size_t, 8 << 30),
        }

        def call(*arguments: Any) -> int:
            if name == self.broken:
                return 100  # CUDA_ERROR_NO_DEVICE
            answers[name](*arguments)
            return 0

        return call


def _put(out: Any, kind: Any, value: int) -> None:
    ctypes.cast(out, ctypes.POINTER(kind))[0] = value


def test_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_files(monkeypatch, {})
    expected = [Gpu("NVIDIA Orin", "8.7", 8192, "CUDA 12.6")]
    assert machine.read_cuda(Driver()) == expected
    with_files(monkeypatch, {"/etc/nv_tegra_release": "# R36 (release)\nmore\n"})
    assert machine.read_cuda(Driver())[0].driver == "# R36 (release)"
    assert len(machine.read_cuda(Driver(count=2))) == 2
    assert machine.read_cuda(Driver(count=0)) == []


@pytest.mark.parametrize(
    "broken",
    [
        "cuInit",
        "cuDeviceGetCount",
        "cuDriverGetVersion",
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceGetAttribute",
        "cuDeviceTotalMem_v2",
    ],
)
def test_a_driver_that_fails(broken: str) -> None:
    assert machine.read_cuda(Driver(broken)) == []


def test_a_driver_without_functions() -> None:
    assert machine.read_cuda(SimpleNamespace()) == []


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    machine._gpus.cache_clear()
    assert machine.gpus() == []
    machine._gpus.cache_clear()


def test_the_limit_of_file_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    for limit, found in ((4096, 4096), (resource.RLIM_INFINITY, None)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        assert machine.file_limit() == found
