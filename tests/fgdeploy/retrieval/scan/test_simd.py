"""The vector code as other CPUs get it: compiled for them, run if this CPU can, and looked at."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fgdeploy.core import machine
from fgdeploy.retrieval.scan import search

pytestmark = pytest.mark.skipif(not search.has_numba(), reason="numba is not installed")
on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="this CPU is not an x86-64"
)
on_arm = pytest.mark.skipif(
    platform.machine().lower() not in ("aarch64", "arm64"), reason="this CPU is not a 64-bit Arm"
)

FEATURES = {
    "haswell": "+avx,+avx2,+bmi,+bmi2,+cx16,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse,+sse2,+sse3,"
    "+ssse3,+sse4.1,+sse4.2",
    "x86-64": "+cx8,+fxsr,+mmx,+sse,+sse2",
}

# Searches with one query and with many, and within a radius; prints the kernels as compiled, and
# the vector functions alone, without what numba adds to every function for x86.
SCRIPT = """
import json, sys
import numba
import numpy as np
from fgdeploy.retrieval import search_codes, search_radius
from fgdeploy.retrieval.scan import scan_kernels, simd
from fgdeploy.retrieval.scan.bitslice import any_closer
from fgdeploy.retrieval.scan.simd import closer_than, least_distance
from tests.fgdeploy.retrieval import naive
queries, codes = naive.draw(1, 9, 1100, 8)
allowed = np.arange(len(codes)) % 3 > 0
for part in (queries[:1], queries):
    naive.same(search_codes(part, codes, 7, kernel="numba"), naive.search(part, codes, 7))
    found = search_codes(part, codes, 7, kernel="numba", allowed=allowed)
    naive.same(found, naive.search(part, codes, 7, allowed))
found = search_radius(queries[0], codes, 26, kernel="numba")
naive.same(found, naive.radius(queries[0], codes, 26))
kernels = {}
for name in ("scan", "scan_many", "collect"):
    kernel = getattr(scan_kernels, name)
    kernels[name] = kernel.inspect_asm(kernel.signatures[0])
alone = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
arguments = (numba.int64,) * 4 + (numba.typeof((0,)),)
for name, function in (
    ("least_distance", alone(lambda a, b, c, d, shape: least_distance(a, b, c, d, shape))),
    ("closer_than", alone(lambda a, b, c, d, shape: closer_than(a, b, c, d, shape))),
    ("any_closer", alone(lambda a, b, c, d, shape: any_closer(a, b, c, d, shape))),
):
    function.compile(arguments)
    kernels[name] = function.inspect_llvm(function.signatures[0])
for width in (4, 6, 16):
    simd._laid_out_widths = lambda words: [width]
    function = alone(lambda a, b, c, d, e, shape: simd.lay_out(a, b, c, d, e, shape))
    function.compile((numba.int64,) * 5 + (numba.typeof((0,) * (1 + width // 9)),))
    kernels[f"lay_out {width}"] = function.inspect_llvm(function.signatures[0])
json.dump(kernels, sys.stdout)
"""
KERNELS = "scan", "scan_many", "collect"


def compiled_for(cpu: str | None, folder: Path) -> dict[str, str]:
    """Return what SCRIPT prints for this CPU or the one here, after its answers were right."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    if cpu:
        env |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": FEATURES[cpu]}
    env |= {"NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels: dict[str, str] = json.loads(done.stdout)
    return kernels


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the kernels for a CPU that has nothing but what every x86-64 has."""
    return compiled_for("x86-64", tmp_path_factory.mktemp("plain"))


@on_x86
def test_avx2_takes_its_wide_registers(tmp_path: Path) -> None:
    if "avx2" not in machine.cpu().features:
        pytest.skip("this CPU has no AVX2")
    kernels = compiled_for("haswell", tmp_path)
    for name in KERNELS:
        assert "%ymm" in kernels[name], name
        assert "%zmm" not in kernels[name], name
        assert "vpshufb" in kernels[name], "AVX2 counts bits by table"


@on_x86
def test_an_old_cpu_takes_what_every_x86_64_has(plain: dict[str, str]) -> None:
    for name in KERNELS:
        assert "%xmm" in plain[name], name
        assert not re.search("%[yz]mm|popcnt", plain[name]), name


@on_x86
def test_neon_counts_bits_with_its_own_instruction(plain: dict[str, str]) -> None:
    """What LLVM makes of the same code for a Jetson or a Raspberry Pi."""
    for name in ("least_distance", "closer_than"):
        assembly = for_neon(plain[name])
        assert re.search(r"\bcnt\s+v\d+\.16b", assembly), name
        assert re.search(r"\beor\s+v\d+\.16b", assembly), name
    for width, least in ((4, "zip1|ext|trn2"), (6, "tbl"), (16, "zip1|zip2")):
        lines = for_neon(plain[f"lay_out {width}"]).splitlines()
        steps = [line for line in lines if line.startswith("\t") and not line.startswith("\t.")]
        assert re.search(rf"\b(?:{least})\b", "\n".join(steps)), width
        assert len(steps) < 8 * 8, "codes are laid out byte by byte"
    # A majority is one selection by bits: bsl, or bit and bif, which overwrite other operands.
    selections = re.findall(r"\b(?:bsl|bit|bif)\s+v\d+\.16b", for_neon(plain["any_closer"]))
    assert len(selections) >= 4 * 19  # in each of the four pairs of words


@on_arm
def test_arm_counts_bits_with_its_own_instruction(tmp_path: Path) -> None:
    kernels = compiled_for(None, tmp_path)
    for name in KERNELS:  # NEON's, or SVE's where numba admits it
        assert re.search(r"\bcnt\s+(v\d+\.16b|z\d+\.d)", kernels[name]), name


def for_neon(code: str) -> str:
    """Return the assembly for a 64-bit Arm of LLVM code that was made for any x86-64."""
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip("llvmlite was built without the target AArch64")
    arm = target.create_target_machine(cpu="cortex-a76", opt=3)
    code = re.sub(r'^target (triple|datalayout) = ".*"$', "", code, flags=re.M)
    module = binding.parse_assembly(code)
    module.triple, module.data_layout = triple, str(arm.target_data)
    module.verify()
    return str(arm.emit_assembly(module))


@on_x86
def test_avx512_adds_three_bits_with_two_instructions() -> None:
    if "avx512f" not in machine.cpu().features or "NUMBA_CPU_NAME" in os.environ:
        pytest.skip("numba does not compile for AVX-512 here")
    import numba

    from fgdeploy.retrieval.scan.bitslice import any_closer

    alone = numba.njit(lambda a, b, c, d, shape: any_closer(a, b, c, d, shape))
    alone.compile((numba.int64,) * 4 + (numba.typeof((0,)),))
    assembly = alone.inspect_asm(alone.signatures[0])
    # 16 groups of four and 8 carries make 5 bits: 19 additions, each of a parity and a majority.
    assert len(re.findall(r"vpternlogq\s+\$150, .*%zmm", assembly)) >= 16
    assert len(re.findall(r"vpternlogq\s+\$232, .*%zmm", assembly)) >= 19
