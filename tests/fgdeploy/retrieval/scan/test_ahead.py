"""The compiled scan is made ready aside: queries never wait, whatever becomes of the compiler."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time

import pytest

from fgdeploy.retrieval import search_codes
from fgdeploy.retrieval.scan import ahead, search
from tests.fgdeploy.retrieval import naive
from tests.fgdeploy.retrieval.scan.conftest import needs_numba

_LONG_S = 120


@needs_numba
def test_numpy_answers_until_the_compiled_scan_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ahead.Ahead()
    monkeypatch.setattr(ahead, "ahead", mine)
    monkeypatch.setattr(search, "_WORTH_NUMBA", 0)
    monkeypatch.setattr(search, "_WORTH_COUNTING", 0)
    state = sys.getswitchinterval(), list(sys.meta_path), gc.isenabled()
    queries, codes = naive.draw(1, 9, 700, 8)
    right = naive.search(queries, codes, 5)
    assert search.chosen("auto", 1, 8) == "numpy"
    naive.same(search_codes(queries, codes, 5), right)
    mine.wait(_LONG_S)
    assert search.chosen("auto", 1, 8) == "numba"
    naive.same(search_codes(queries, codes, 5), right)
    assert (sys.getswitchinterval(), list(sys.meta_path), gc.isenabled()) == state


def test_a_compiler_that_fails_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ahead.Ahead()
    monkeypatch.setattr(ahead, "_COMPILE", "raise RuntimeError('no room for code')")
    assert not mine.ready(1)
    mine.wait(_LONG_S)
    with pytest.warns(RuntimeWarning, match="no room for code; NumPy answers instead"):
        assert not mine.ready(1)
    assert not mine.ready(1)  # a second warning would be an error


def test_a_compiler_that_is_killed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ahead.Ahead()
    monkeypatch.setattr(ahead, "_COMPILE", "import os, signal; os.kill(os.getpid(), 9)")
    assert not mine.ready(1)
    mine.wait(_LONG_S)
    with pytest.warns(RuntimeWarning, match="the compiler ended with"):
        assert not mine.ready(1)


def test_a_process_that_ends_takes_its_compiler_along() -> None:
    code = (
        "import time\n"
        "from fgdeploy.retrieval.scan import ahead\n"
        "ahead._COMPILE = 'import time; time.sleep(600)'\n"
        "ahead.ahead.ready(1)\n"
        "while ahead.ahead._compiler is None: time.sleep(0.01)\n"
        "print(ahead.ahead._compiler.pid)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=_LONG_S, check=True
    )
    assert run.stderr == ""
    end = time.monotonic() + _LONG_S
    while os.path.exists(f"/proc/{int(run.stdout)}") and time.monotonic() < end:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{int(run.stdout)}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_keeps_what_is_ready_only(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ahead.Ahead()
    mine._ready.add(1)
    mine._begun |= {1, 2}
    monkeypatch.setattr(ahead, "ahead", mine)
    ahead._forget()
    assert ahead.ahead is not mine
    assert (ahead.ahead._ready, ahead.ahead._begun) == ({1}, set())
    assert ahead.ahead.ready(1)
