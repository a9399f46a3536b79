"""How a command must fail."""

from __future__ import annotations

import re

from typer.testing import Result


def fails(result: Result, code: int, pattern: str) -> None:
    """Assert one clear line on stderr, the exit code, and nothing on stdout."""
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    assert re.search(pattern, errors[0]), errors[0]
    assert "Traceback" not in result.output
    assert result.stdout == ""
