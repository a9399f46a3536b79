"""The command line: each command parses, makes one library call, and shows the result.

Command modules import what they need inside their functions, so that help comes at once.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; installed as `fgdeploy`."""
    import io
    import signal
    import sys
    import warnings
    from types import FrameType

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)  # as an exception, so that what is half-written goes

    # Pillow's on damaged metadata; what makes a photo unreadable is told in our own words
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        signal.signal(signal.SIGTERM, stop)
        from fgdeploy.cli.app import app
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be any bytes
    app(prog_name="fgdeploy")


__all__ = ["main"]
