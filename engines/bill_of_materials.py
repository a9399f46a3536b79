"""What an engine was built with, as a CycloneDX 1.6 bill of materials (SBOM) in `engine.json`.

Components are the installed distributions of which the building process had loaded a file, system
libraries of NVIDIA that it had loaded, Python, the operating system, the processor or GPUs with
their driver. No times, no paths, no names of machines or users: the same environment gives
the same bytes. https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from fgdeploy import __version__
from fgdeploy.core import json_schema, machine

MOST_COMPONENTS = 1000
_LONGEST = 200  # characters of a name, version or licence
_NVIDIA = re.compile(r"/lib((?:nv|cu)[A-Za-z_]*)\.so\.(\d+(?:\.\d+)*)$")
_Json = dict[str, Any]


def of_this_process(
    name: str, backend_version: str, sha256: str, device: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the bill of an engine that was just built here.

    name: BACKEND:PRECISION; sha256: of the engine's file; device: as in its record.
    """
    engine = engine_component(name, backend_version, sha256)
    parts = _sorted([*_distributions(), *_libraries(), *_platform(), *_hardware(device)])
    return document(engine, parts, {engine["bom-ref"]: [one["bom-ref"] for one in parts]})


def engine_component(name: str, backend_version: str, sha256: str) -> dict[str, Any]:
    """Return the component that an engine is."""
    return {
        "type": "machine-learning-model",
        "bom-ref": f"engine:{name}:{sha256[:16]}",
        "name": name,
        "version": backend_version[:_LONGEST],
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }


def document(
    about: Mapping[str, Any],
    components: Iterable[Mapping[str, Any]],
    needs: Mapping[str, Iterable[str]],
) -> dict[str, Any]:
    """Return a whole bill: of what, its components, and which of them needs which by `bom-ref`."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": dict(about)},
        "components": [dict(one) for one in components][:MOST_COMPONENTS],
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in needs.items()],
    }


def merged(name: str, fingerprint: str, bills: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one bill of a bundle, from those of its engines.

    name: of the bundle; fingerprint: of its model. A part that several engines have stands once.
    """
    about = {
        "type": "machine-learning-model",
        "bom-ref": f"bundle:{fingerprint[:16]}",
        "name": name,
        "version": fingerprint[:16],
    }
    parts: dict[str, _Json] = {}
    needs: dict[str, list[str]] = {about["bom-ref"]: []}
    for bill in bills:
        engine = bill["metadata"]["component"]
        needs[about["bom-ref"]].append(engine["bom-ref"])
        needs[engine["bom-ref"]] = [one["bom-ref"] for one in bill["components"]]
        parts.update((one["bom-ref"], one) for one in (engine, *bill["components"]))
    return document(about, _sorted(parts.values()), needs)


def is_valid(value: Any) -> bool:
    """Tell whether a value of an `engine.json` can be a bill that `of_this_process` made."""
    try:
        _SCHEMA(value, "sbom")
    except ValueError:
        return False
    return value["specVersion"] == "1.6" and len(value["components"]) <= MOST_COMPONENTS


_COMPONENT = json_schema.table(
    {"type": json_schema.NAME, "name": json_schema.NAME, "bom-ref": json_schema.NAME}
)
_SCHEMA = json_schema.table(
    {
        "bomFormat": json_schema.one_of("CycloneDX"),
        "specVersion": json_schema.TEXT,
        "metadata": json_schema.table({"component": _COMPONENT}),
        "components": json_schema.list_of(_COMPONENT),
    }
)


def _sorted(components: Iterable[_Json]) -> list[_Json]:
    unique = {one["bom-ref"]: one for one in components}
    return sorted(unique.values(), key=lambda one: (one["type"], one["name"], one["bom-ref"]))


# --- distributions


def _distributions() -> Iterator[_Json]:
    """Yield the distributions of which this process has loaded a file, and fgdeploy itself."""
    loaded = _loaded_files()
    tops = {name.partition(".")[0].lower() for name in tuple(sys.modules)}
    yield _package("fgdeploy", __version__, [{"license": {"id": "Apache-2.0"}}])
    for entry, files in _installed():
        # Debian's packages list no files
        top = entry["name"].replace("-", "_")
        if entry["name"] != "fgdeploy" and (not loaded.isdisjoint(files) if files else top in tops):
            yield entry


def _loaded_files() -> set[str]:
    """Return the files of all loaded modules and mapped libraries."""
    named = (getattr(module, "__file__", None) for module in tuple(sys.modules.values()))
    return {os.fspath(file) for file in named if isinstance(file, str)} | set(_mapped())


def _mapped() -> list[str]:
    """Return the files that are mapped into this process; none where the system does not tell."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
            places = (line.rstrip("\n").split(maxsplit=5) for line in stream)
            return sorted({place[5] for place in places if len(place) == 6 and ".so" in place[5]})
    except OSError:
        return []


@functools.cache
def _installed() -> tuple[tuple[_Json, frozenset[str]], ...]:
    """Return each installed distribution with its code files; read once, for many engines."""
    found = []
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(Exception):  # a damaged one, as an interrupted install leaves
            facts = distribution.metadata
            entry = _package(facts["Name"], facts["Version"], _licences(facts))
            base = str(distribution.locate_file(""))
            lines = (distribution.read_text("RECORD") or "").splitlines()
            names = (line.rsplit(",", 2)[0] for line in lines)
            code = (one for one in names if one.endswith(".py") or ".so" in one)
            found.append((entry, frozenset(os.path.join(base, one) for one in code)))
    return tuple(found)


def _package(name: str, version: str, licences: list[_Json]) -> _Json:
    plain = re.sub(r"[-_.]+", "-", name).lower()[:_LONGEST]
    version = str(version)[:_LONGEST]
    purl = f"pkg:pypi/{quote(plain)}@{quote(version, safe='')}"
    entry = {"type": "library", "bom-ref": purl, "name": plain, "version": version, "purl": purl}
    return {**entry, "licenses": licences} if licences else entry


def _licences(metadata: Any) -> list[_Json]:
    """Return the licences that a distribution's metadata names, in short."""
    if expression := metadata.get("License-Expression"):
        return [{"expression": str(expression)[:_LONGEST]}]
    found = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License :: ") and line.rpartition(" :: ")[2] != "OSI Approved"
    ]
    text = str(metadata.get("License") or "").strip()
    if not found and text and "\n" not in text and len(text) <= _LONGEST:  # not a whole licence
        found = [text]
    return [{"license": {"name": name[:_LONGEST]}} for name in sorted(set(found))]


# --- what lies below Python


def _libraries() -> Iterator[_Json]:
    """Yield NVIDIA's libraries that were loaded, of which the most telling version."""
    best: dict[str, str] = {}
    for place in _mapped():
        if found := _NVIDIA.search(os.path.realpath(place)):
            best[found[1]] = max(best.get(found[1], ""), found[2], key=len)
    for name, version in best.items():
        yield _part("library", f"lib{name}", version)


def _platform() -> Iterator[_Json]:
    yield _part("platform", platform.python_implementation(), platform.python_version())
    yield _part("operating-system", platform.system(), platform.release())
    with contextlib.suppress(OSError, KeyError):
        release = platform.freedesktop_os_release()
        yield _part("operating-system", release["NAME"], release.get("VERSION_ID", ""))


def _hardware(device: Mapping[str, Any]) -> Iterator[_Json]:
    cpu = machine.cpu()
    yield _part("device", cpu.name, cpu.arch)
    if device["kind"] != "cuda":
        return
    for gpu in machine.gpus():
        yield _part("device", gpu.name, gpu.compute_capability)
        yield _part("device-driver", "NVIDIA driver", gpu.driver)


def _plain(text: str) -> str:
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(kept.split())[:_LONGEST]


def _part(kind: str, name: str, version: str) -> _Json:
    name, version = _plain(name) or "unknown", _plain(version)
    entry = {"type": kind, "bom-ref": f"{kind}:{name}:{version}", "name": name}
    return {**entry, "version": version} if version else entry
