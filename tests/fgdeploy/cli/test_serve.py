"""`fgdeploy serve`: what is refused before anything runs; tests/fgdeploy/serve run it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_beyond_this_machine_a_key_is_needed(run: Run, bundle: Path) -> None:
    fails(run("serve", "-b", bundle, "--host", "0.0.0.0"), 2, "give an API key")
    fails(
        run("serve", "-b", bundle, "--api-key-file", "none"),
        2,
        "--api-key-file none cannot be read",
    )


def test_a_checkpoint_is_for_explaining(run: Run, bundle: Path) -> None:
    words = "--checkpoint best.pth is for --explain; give both or none"
    fails(run("serve", "-b", bundle, "--checkpoint", "best.pth"), 2, words)
    missing = run("serve", "-b", bundle, "--port", 0, "--explain", "--checkpoint", "best.pth")
    fails(missing, 1, "best.pth")


def test_a_port_that_is_taken(run: Run, bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        fails(run("serve", "-b", bundle, "--port", port), 1, f"{port}: another program listens")


def test_a_bundle_that_is_not_there(run: Run) -> None:
    fails(run("serve", "-b", "none.fgd", "--port", 0), 1, "none.fgd")


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client", "httptools"])
def test_a_missing_package_is_named_with_its_extra(package: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from fgdeploy.cli import main
sys.argv = ["fgdeploy", "serve", "--port", "0"]
main()
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 1, found.stderr
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("error: the service needs the package ")
    assert 'pip install "fgdeploy[serve]"' in found.stderr


def test_neither_the_command_nor_the_room_imports_packages_before_they_are_needed() -> None:
    code = """
import sys
import fgdeploy.cli.app, fgdeploy.serve, fgdeploy.live.hash_worker
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    for package in ("fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic"):
        assert f"'{package}'" not in found.stdout
