"""What runs in the processes of a cluster: one engine each, pieces of a list in, rows of codes out.

Nothing that is expected to happen is raised here, as Ray would drop or repeat all of a piece for
it: it comes back as a row. This module knows nothing of Ray.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fgdeploy
from fgdeploy.code_table import NO_FACTS, Facts, facts_of
from fgdeploy.core.errors import (
    BundleError,
    DataError,
    EngineError,
    FgdeployError,
    ImageError,
    UsageError,
)
from fgdeploy.hasher import Hasher, load
from fgdeploy.spread.stored_photos import StoredFile, open_store, stored_files

CODE, PHOTO = "code", "photo"  # kinds of rows; all others are names of errors that end the work
_ERRORS = {one.__name__: one for one in (BundleError, DataError, EngineError, UsageError)}


@dataclass(frozen=True)
class Task:
    """What all processes of a work have in common.

    bundle, folder: absolute paths, the same on every machine; folder: where relative names count
    from, empty where there are none. backend: NAME:PRECISION. address, root: of the store, empty
    for files. strict: end a piece at the first photo that cannot be read.
    """

    bundle: str
    folder: str
    backend: str
    threads: int
    batch: int | None
    fallback: bool
    bit_depth: int | None
    address: str = ""
    root: str = ""
    strict: bool = False
    version: str = fgdeploy.__version__


@dataclass(frozen=True)
class Opened:
    """What one process opened, and how every other can open the same."""

    engine: str
    reason: str
    bits: int
    code_bytes: int
    fingerprint: str
    bit_depth: int | None
    reopening: tuple[Any, ...] = field(repr=False)


def try_out(task: Task) -> Opened | tuple[str, str]:
    """Open the engine once where the work will run; return what it is, or an error's kind, text."""
    try:
        _prepare(task)
        with load(
            task.bundle,
            task.backend,
            threads=task.threads,
            batch=task.batch,
            fallback=task.fallback,
            bit_depth=task.bit_depth,
        ) as hasher:
            return Opened(
                hasher.engine.describe(),
                hasher.engine.reason,
                hasher.bits,
                hasher.manifest.code_bytes,
                hasher.fingerprint,
                hasher.bit_depth,
                hasher.__reduce__(),
            )
    except (FgdeployError, OSError) as error:
        return _told(error)


class HashActor:
    """One engine, opened once, and the pieces that Ray hands to it."""

    def __init__(self, task: Task, opened: Opened) -> None:
        self._task = task
        self._worker = f"{platform.node()} {os.getpid()}"
        self._hasher: Hasher | None = None
        self._refusal = ("", "")
        try:
            _prepare(task)
            make, settings = opened.reopening
            self._hasher = make(*settings)
            self._store = open_store(task.address)[0] if task.address else None
        except (FgdeployError, OSError) as error:
            self._refusal = _told(error)

    def __call__(self, piece: Any) -> Any:
        """Return rows for a piece, both `pyarrow.Table`.

        piece: position, name (bytes). Rows: position, size, changed (ns), kind, code (bytes), text
        (why a photo or all the rest cannot be hashed), worker; one for each position, fewer where
        the work must end.
        """
        rows = _Rows(self._worker)
        if self._hasher is None:
            rows.refuse(*self._refusal)
            return rows.table()
        positions = piece["position"].to_pylist()
        names = [os.fsdecode(name) for name in piece["name"].to_pylist()]
        try:
            self._hash(self._hasher, positions, self._sources(names), rows)
        except FgdeployError as error:
            rows.refuse(*_told(error))
        return rows.table()

    def _hash(self, hasher: Hasher, positions: list[int], sources: _Sources, rows: _Rows) -> None:
        def skip(place: int, error: ImageError) -> None:
            facts, text = sources.met(place, error)
            rows.add(positions[place], facts, PHOTO, text=text)
            if self._task.strict:
                sources.ended = True  # not at once, as what was read before is to be hashed

        for hashed in hasher.stream(sources, skip):
            for place, code in zip(hashed.positions, hashed.outputs.code, strict=True):
                rows.add(positions[place], sources.facts[place], CODE, code.tobytes())

    def _sources(self, names: Sequence[str]) -> _Sources:
        if self._store is None:
            return _Files(names)
        return _Stored(names, self._store, self._task)


class _Sources:
    """The photos of a piece, in order, and what is noted of each before it is read.

    ended: give no more.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.facts: list[Facts] = []
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def met(self, place: int, error: ImageError) -> tuple[Facts, str]:
        """Return the facts of a photo that cannot be read, and why."""
        return self.facts[place], str(error)


class _Files(_Sources):
    def __iter__(self) -> Iterator[Path]:
        for name in self.names:
            if self.ended:
                return
            path = Path(name)
            self.facts.append(facts_of(path))
            yield path


class _Stored(_Sources):
    """facts: none, as the list of the store has them."""

    def __init__(self, names: Sequence[str], store: Any, task: Task) -> None:
        super().__init__(names)
        self._files: list[StoredFile] = []
        self._made = stored_files(store, task.address, task.root, names)

    def __iter__(self) -> Iterator[StoredFile]:
        for file in self._made:
            if self.ended:
                return
            self.facts.append(NO_FACTS)
            self._files.append(file)
            yield file

    def met(self, place: int, error: ImageError) -> tuple[Facts, str]:
        file = self._files[place]
        if file.lost:
            raise EngineError(
                f"{file.name} cannot be fetched: {file.lost}; the same command goes on when the "
                "store answers"
            )
        return self.facts[place], file.named(error)


class _Rows:
    """Rows of an answer, column by column."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("position", "size", "changed", "kind", "code", "text")
        }

    def add(
        self, position: int, facts: Facts, kind: str, code: bytes = b"", text: str = ""
    ) -> None:
        values = (position, *facts, kind, code, text)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)

    def refuse(self, kind: str, text: str) -> None:
        """Say why the work must end."""
        self.add(-1, NO_FACTS, kind, text=text)

    def table(self) -> Any:
        import pyarrow as pa

        whole, text = pa.int64(), pa.string()
        kinds = {"position": whole, "size": whole, "changed": whole, "kind": text}
        kinds |= {"code": pa.binary(), "text": text}
        arrays = {name: pa.array(self._columns[name], kind) for name, kind in kinds.items()}
        return pa.table({**arrays, "worker": [self._worker] * len(arrays["position"])})


def error_of(kind: str, text: str) -> FgdeployError:
    """Return the error that came as a kind and a text; one without a class here is an engine's."""
    return _ERRORS.get(kind, EngineError)(text)


def _prepare(task: Task) -> None:
    """Stand where the command was given. Raises EngineError where this machine is set up unlike."""
    here = platform.node()
    if task.version != fgdeploy.__version__:
        raise EngineError(
            f"{here} has fgdeploy {fgdeploy.__version__}, expected {task.version}; install the "
            "same on every machine of the cluster"
        )
    try:
        if task.folder:
            os.chdir(task.folder)
    except OSError as error:
        raise EngineError(
            f"{here} has no folder {task.folder} ({error.strerror}); give photos and bundle the "
            "same place on every machine"
        ) from None


def _told(error: Exception) -> tuple[str, str]:
    """Return an error as its kind and what it says."""
    return type(error).__name__, str(error)
