"""Compiled functions: what they may not do, and where they are kept."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fgdeploy.retrieval import search_codes
from tests.fgdeploy.retrieval import naive
from tests.fgdeploy.retrieval.scan.conftest import needs_numba

pytestmark = pytest.mark.usefixtures("small_chunks")


@needs_numba
def test_compiled_functions_take_no_address_of_their_own_arrays() -> None:
    """Numba frees an array after the last line that names it, whatever its address is used for."""
    from fgdeploy.retrieval.scan import multi_index, scan_kernels

    kept, compiled = 0, 0
    for module in (scan_kernels, multi_index):
        for function in ast.parse(inspect.getsource(module)).body:
            if not isinstance(function, ast.FunctionDef):
                continue
            if not any(ast.unparse(each) == "compiled" for each in function.decorator_list):
                continue
            compiled += 1
            given = {argument.arg for argument in function.args.args}
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr == "ctypes":
                    assert ast.unparse(node.value) in given, f"{function.name}: {node.lineno}"
                    kept += 1
    assert compiled >= 12 and kept == 2  # the tables that `scan_many` is given


@needs_numba
def test_a_second_process_takes_the_compiled_scan_from_the_cache() -> None:
    queries, codes = naive.draw(6, 8, 10, 8)
    search_codes(queries, codes, 3, kernel="numba")
    search_codes(queries[:1], codes, 3, kernel="numba")
    code = (
        "import numpy as np\n"
        "from fgdeploy.retrieval import search_codes\n"
        "from fgdeploy.retrieval.scan import scan_kernels\n"
        "codes = np.zeros((10, 8), np.uint8)\n"
        "for queries in (codes[:8], codes[:1]): search_codes(queries, codes, 3, kernel='numba')\n"
        "for scan in (scan_kernels.scan, scan_kernels.scan_many):\n"
        "    print(sum(scan.stats.cache_hits.values()), sum(scan.stats.cache_misses.values()))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["1", "0", "1", "0"]


@needs_numba
def test_the_cache_heeds_the_files_of_the_vector_code() -> None:
    """Numba itself looks at no other file than that of the function."""
    from fgdeploy.retrieval.scan import bitslice, scan_kernels, simd

    digests = [scan_kernels._digest(*some) for some in ((bitslice,), (simd,), (bitslice, simd))]
    assert len(set(digests)) == 3
    kept = os.listdir(scan_kernels.scan.stats.cache_path)
    assert any(f".scan_{digests[2]}-" in name for name in kept)


@needs_numba
@pytest.mark.parametrize("kept", [False, True])
def test_compiled_code_is_kept_where_it_was_told_or_nowhere(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba's own next choice would be the home folder."""
    from fgdeploy.retrieval.scan import scan_kernels

    def double(number: int) -> int:
        return 2 * number

    (tmp_path / "file").touch()
    told = tmp_path / ("cache" if kept else "file/cache")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(scan_kernels.numba.config, "CACHE_DIR", str(told))
    monkeypatch.setattr(scan_kernels, "_MAY_CACHE", scan_kernels._may_cache())
    assert kept == scan_kernels._MAY_CACHE
    assert scan_kernels.compiled(double)(21) == 42
    assert bool(list(tmp_path.rglob("*double*.nbc"))) == kept
    assert not (tmp_path / "home").exists()
