"""The command line: each command parses, makes one library call, and shows the result.

Command modules import what they need inside their functions, so that help comes at once.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; installed as `fgdeploy`."""
    import io
    import sys

    from fgdeploy.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be any bytes
    app(prog_name="fgdeploy")


__all__ = ["main"]
