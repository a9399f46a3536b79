"""What stands around a bundle: licences of the packages that run it, this machine, the day."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata

from fgdeploy import __version__, doctor
from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown

_RUNTIME = ("fgdeploy", "numpy", "pillow", "typer")
_LONGEST = 80  # characters of a licence; some packages give the whole text
_WHEELS = {  # of an engine's backend
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "cuda-bindings"),
    "tensorrt-rtx": ("tensorrt-rtx", "cuda-bindings"),
}


def package_licences(engines: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return name, version and licence of the packages that run these engines, BACKEND:PRECISION.

    As each package states it; "not installed" or "not stated" otherwise.
    """
    backends = dict.fromkeys(name.partition(":")[0] for name in engines)
    wheels = (wheel for backend in backends for wheel in _WHEELS.get(backend, (backend,)))
    return [_licence(name) for name in dict.fromkeys((*_RUNTIME, *wheels))]


def _licence(name: str) -> tuple[str, str, str]:
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        known = (__version__, "Apache-2.0") if name == "fgdeploy" else ("-", "not installed")
        return name, *known
    classes = [
        one.rpartition(" :: ")[2]
        for one in found.get_all("Classifier") or ()
        if one.startswith("License :: ")
    ]
    stated = [found[key] for key in ("License-Expression", "License") if key in found]
    if "License-Expression" not in found and classes:
        stated.insert(0, ", ".join(classes))
    said = next(filter(None, stated), None)
    lines = (said or "not stated").strip().splitlines()
    return name, found["Version"], lines[0][:_LONGEST]


def environment() -> list[tuple[str, str]]:
    """Return this machine and its packages, as rows."""
    here = doctor.examine()
    gpus = ", ".join(gpu.name for gpu in here.gpus) or "none"
    versions = ", ".join(f"{one.name} {one.version}" for one in here.packages if one.version)
    memory = "unknown" if here.memory_gib is None else f"{here.memory_gib:g} GiB"
    return [
        ("CPU", f"{here.cpu}, {here.cores} usable"),
        ("vector extensions", ", ".join(here.cpu_features) or "none known"),
        ("GPU", gpus),
        ("memory", memory),
        ("system", f"{here.system}, Python {here.python}"),
        ("packages", f"fgdeploy {__version__}, {versions}"),
    ]


def day() -> str:
    """Return the day in UTC, or that of SOURCE_DATE_EPOCH. Raises UsageError for what is no time.

    https://reproducible-builds.org/specs/source-date-epoch/
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        return datetime.now(timezone.utc).date().isoformat()
    try:
        return datetime.fromtimestamp(int(given), timezone.utc).date().isoformat()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {shown(repr(given))}; expected seconds since 1970, or unset it"
        ) from None
