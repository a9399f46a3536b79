"""Work in a process of its own: its memory is its own, and it never outlives the one that asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from fgdeploy.core.errors import EngineError, FgdeployError
from fgdeploy.core.text import one_line

_LONGEST = 400  # characters of a reason


def run_apart(module: str, wanted: Mapping[str, Any], threads: int | None = None) -> Any:
    """Return what a module's `answer` gives to `wanted`; both are JSON.

    threads: of libraries that read them from the environment. Raises EngineError with the reason,
    in one line, if it fails or dies. An interrupt ends the process, and all that it started.
    """
    command = [sys.executable, "-m", module, json.dumps(wanted)]
    heard, held = os.pipe()  # the process reads its end: that is ours
    try:
        process = subprocess.Popen(
            command,
            stdin=heard,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env=_environment(threads),
        )
        try:
            out, err = process.communicate()
        finally:
            _end(process)
    finally:
        os.close(heard)
        os.close(held)
    if process.returncode:
        raise EngineError(_reason(err) or _code(process.returncode))
    return json.loads(out.splitlines()[-1])  # what libraries print stands before it


def answer(work: Callable[[Any], Any]) -> int:
    """Answer `run_apart`: print what `work` makes of the question, and return the exit code."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        print(json.dumps(work(json.loads(sys.argv[1]))))
    except FgdeployError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # engines and torch raise what they like
        print(f"\n{type(error).__name__}: {one_line(str(error), _LONGEST)}", file=sys.stderr)
        return 1
    return 0


def _leave_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and those that it started, of which some may be left when it is not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(threads: int | None) -> dict[str, str]:
    counts = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    # Compiling in this process alone: its helpers would be processes of their own
    return {**os.environ, **counts, "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def _reason(err: str) -> str:
    lines = [line for line in err.splitlines() if line.strip()]
    return one_line(lines[-1], _LONGEST) if lines else ""


def _code(code: int) -> str:
    if code < 0:
        killed = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"the process was ended by signal {-code}{killed}"
    return f"exit code {code}"
