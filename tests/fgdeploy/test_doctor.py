import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fgdeploy import doctor
from fgdeploy.core.machine import gpus
from fgdeploy.doctor import Machine, Package, examine
from fgdeploy.engines import BACKENDS, available

HEAVY = ("torch", "timm", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda")
ARM = "processor\t: 0\nFeatures\t: fp asimd aes asimddp i8mm bf16\n\nprocessor\t: 1\n"
X86 = (
    "processor\t: 0\nmodel name\t: Some CPU: fast\nflags\t\t: fpu avx2 avx512f avx512_vnni sse\n"
    "vmx flags\t: vnmi avx512_bf16\n"
)


@pytest.fixture
def machine() -> Machine:
    return examine()


def test_this_machine(machine: Machine) -> None:
    assert machine.python == platform.python_version()
    assert machine.system.startswith(platform.system())
    assert machine.cpu
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.memory_gib is None or 0.1 < machine.memory_gib < 100_000
    assert machine.gpus == gpus()
    assert machine.engines == available()
    assert set(machine.engines) <= set(BACKENDS)
    assert len(machine.cpu_features) == len(set(machine.cpu_features))


def test_packages_are_as_installed(machine: Machine) -> None:
    by_name = {package.name: package for package in machine.packages}
    assert len(by_name) == len(machine.packages)
    for name, package in by_name.items():
        try:
            assert package.version == importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            assert package.version is None
        assert package.purpose
    assert all(needed in by_name for needed in ("onnxruntime", "openvino", "torch", "tensorrt"))


def test_extras_are_those_of_the_project(machine: Machine) -> None:
    extras: dict[str, set[str]] = {}  # a package may come with several
    for line in importlib.metadata.requires("fgdeploy") or []:
        name = re.split(r"[<>=!~;\s\[]", line, maxsplit=1)[0]
        found = re.findall(r"extra == ['\"]([\w-]+)['\"]", line)
        extras.setdefault(name, set()).update(found)
    for package in machine.packages:
        if package.name in extras:
            assert package.extra in extras[package.name]
    offered = set(importlib.metadata.metadata("fgdeploy").get_all("Provides-Extra") or [])
    assert {package.extra for package in machine.packages} <= offered


def test_nothing_heavy_is_imported() -> None:
    program = f"""
import json, sys
from fgdeploy.doctor import examine
machine = examine()
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
print(json.dumps([machine.engines, machine.can_export, machine.cores]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    imported, seen = map(json.loads, done.stdout.splitlines())
    assert imported == []
    here = examine()
    assert seen == [here.engines, here.can_export, here.cores]


def test_a_machine_with_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    machine = examine()
    assert {package.version for package in machine.packages} == {None}
    assert not machine.can_export


def held(monkeypatch: pytest.MonkeyPatch, *names: str) -> Machine:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0" if name in names else None)
    return examine()


EXPORT = ("torch", "timm", "onnx", "onnxscript", "onnxruntime")


def test_export_needs_all_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(monkeypatch, *EXPORT).can_export
    for missing in EXPORT:
        machine = held(monkeypatch, *(name for name in EXPORT if name != missing))
        assert not machine.can_export
        lost = next(package for package in machine.packages if package.name == missing)
        assert isinstance(lost, Package)
        assert lost.version is None


def test_export_with_the_gpu_build_of_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(monkeypatch, *EXPORT[:-1], "onnxruntime-gpu").can_export


# What the system's files say


def with_files(monkeypatch: pytest.MonkeyPatch, **texts: str | None) -> None:
    """Put other texts in the place of the system's files; None is a file that is not there."""
    read_text = Path.read_text
    places = {
        "cpuinfo": "/proc/cpuinfo",
        "nvidia": "/sys/module/nvidia/version",
        "tegra": "/etc/nv_tegra_release",
    }

    def read(self: Path, *arguments: object, **named: object) -> str:
        for name, place in places.items():
            if str(self) == place and name in texts:
                text = texts[name]
                if text is None:
                    raise FileNotFoundError(2, "No such file or directory", place)
                return text
        return read_text(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read)


def test_an_x86_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_files(monkeypatch, cpuinfo=X86)
    machine = examine()
    assert machine.cpu == "Some CPU: fast"
    assert machine.cpu_features == ["avx2", "avx512f", "avx512_vnni"]


def test_an_arm_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_files(monkeypatch, cpuinfo=ARM)
    machine = examine()
    assert machine.cpu_features == ["asimd", "asimddp", "i8mm", "bf16"]
    assert machine.cpu == (platform.processor() or platform.machine())


def test_a_system_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    with_files(monkeypatch, cpuinfo=None, nvidia=None, tegra=None)
    monkeypatch.setattr(os, "sysconf", unknown)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    machine = examine()
    assert machine.cpu
    assert (machine.cpu_features, machine.nvidia_driver, machine.memory_gib) == ([], None, None)
    assert machine.cores == (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("nvidia", "tegra", "driver"),
    [
        ("570.86.15\n", None, "570.86.15"),
        (None, "# R36 (release), REVISION: 4.0\nmore\n", "# R36 (release), REVISION: 4.0"),
        ("", "# R36\n", "# R36"),
        (None, None, None),
    ],
)
def test_the_nvidia_driver(
    nvidia: str | None,
    tegra: str | None,
    driver: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_files(monkeypatch, nvidia=nvidia, tegra=tegra)
    assert examine().nvidia_driver == driver


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    examine()
    assert capsys.readouterr() == ("", "")


def test_cuda_wheels_are_asked_for_with_onnxruntime_gpu_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = {"onnxruntime": "1", "nvidia-cublas": "13", "nvidia-cudnn-cu13": "9"}
    monkeypatch.setattr(doctor, "_version", held.get)
    assert examine().cuda_missing == []
    held["onnxruntime-gpu"] = "1"
    missing = examine().cuda_missing
    assert "nvidia-cuda-runtime" in missing and not set(missing) & set(held)
