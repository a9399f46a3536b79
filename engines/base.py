"""What every engine is: frames in, codes and hashes out."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Manifest
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.core.guard import Guard
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.engine_layers import Layers

Graphs = Mapping[str, tuple[str, ...]]
FloatArray = npt.NDArray[np.float32]

BATCH = 8  # frames of one run, where nothing else is said


@dataclass(frozen=True)
class Outputs:
    """The graph's outputs for B frames.

    code: uint8 (B, ceil(bits/8)), most significant bit first; hash: float32 (B, bits);
    embedding: float32 (B, D) or None; logits: float32 (B, C) or None; extras: what else the method
    declares, by name, such as a `box`.
    """

    code: npt.NDArray[np.uint8]
    hash: FloatArray
    embedding: FloatArray | None = None
    logits: FloatArray | None = None
    extras: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Outputs:
        """Make Outputs from arrays by name, copied so that no engine buffer leaks out."""
        copied: dict[str, Any] = {name: np.array(value) for name, value in arrays.items()}
        if not {"code", "hash"} <= set(copied):
            raise EngineError(
                f"expected the outputs code and hash, got {', '.join(arrays) or 'none'}; export "
                "the bundle again"
            )
        known = {name: copied.pop(name, None) for name in ("code", "hash", "embedding", "logits")}
        return cls(**known, extras=copied)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all outputs by name."""
        known: dict[str, npt.NDArray[Any]] = {"code": self.code, "hash": self.hash}
        for name, value in (("embedding", self.embedding), ("logits", self.logits)):
            if value is not None:
                known[name] = value
        return {**known, **self.extras}

    @classmethod
    def concatenate(cls, parts: Sequence[Outputs]) -> Outputs:
        """Return the outputs of several runs of one engine, at least one, as those of one run."""
        return cls(
            np.concatenate([part.code for part in parts]),
            np.concatenate([part.hash for part in parts]),
            _join([part.embedding for part in parts]),
            _join([part.logits for part in parts]),
            {
                name: np.concatenate([part.extras[name] for part in parts])
                for name in parts[0].extras
            },
        )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _join(parts: Sequence[FloatArray | None]) -> FloatArray | None:
    held = [part for part in parts if part is not None]
    return np.concatenate(held) if held else None


class Engine(Closing):
    """A model that runs, a context manager. `run` checks its input, `_run` does the work.

    Any thread may run it, and any may close it; what runs then comes to its end. A forked process
    must open its own. concurrent: whether `_run` may be called by several threads at once.
    max_batch: the most frames of one run, None for any number. reason: why `open_engine` chose it.
    """

    backend: str
    precision: str
    concurrent: ClassVar[bool] = False
    max_batch: int | None = None
    reason: str = ""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._guard = Guard(self, self.concurrent)

    def close(self) -> None:
        """Free the engine; running it afterwards raises EngineError. Twice does no harm."""
        if not self._guard.forked and self._guard.close():
            self._free()

    def __reduce__(self) -> tuple[Any, ...]:
        raise UsageError(
            f"the {self.backend} engine cannot be copied or sent to another process; send the "
            "Hasher, which opens it there, or open it there"
        )

    def check_open(self) -> None:
        """Raise EngineError if it is closed, or was opened before this process was forked."""
        if self._guard.forked:
            raise EngineError(
                f"the {self.backend} engine was opened before this process was forked, and its "
                "threads stayed behind; open it after the fork, or start processes by spawn"
            )
        if self._guard.closed:
            raise EngineError(f"the {self.backend} engine is closed; open a new one")

    def describe(self) -> str:
        """Return in one line what runs."""
        return f"{self.backend} {self.precision}"

    def at_once(self, count: int) -> int:
        """Return how many of `count` frames that wait to run next, so that nobody waits in vain.

        Fewer than `count` where it would run them in pieces of so many anyway.
        """
        return min(count, self.max_batch or count)

    def run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        """Run frames, uint8 (B, S, S, 3) RGB with B >= 1. Raises EngineError for anything else."""
        self.check_open()
        self._check(frames)
        with self._turn():
            try:
                outputs = self._run(np.ascontiguousarray(frames))
            except EngineError:
                raise
            except Exception as error:  # each backend has errors of its own
                raise EngineError(
                    f"{self.backend} failed on {frames.shape[0]} frames: {one_line(error)}; "
                    "see: fgdeploy doctor"
                ) from error
        return self._checked(outputs, frames.shape[0])

    def run_all(
        self,
        frames: npt.NDArray[np.uint8],
        batch: int = BATCH,
        progress: Progress = no_progress,
    ) -> Outputs:
        """Run any number of frames, uint8 (N, S, S, 3) with N >= 1, as one; `batch` at a time.

        Where the engine takes fewer at once (`max_batch`), so many. Raises EngineError as `run`.
        """
        step = min(batch, self.max_batch or batch)
        return run_in_batches(self.run, frames, step, progress)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._guard.enter():
            self.check_open()  # closed while this thread waited
        try:
            yield
        finally:
            self._guard.leave()

    def _check(self, frames: npt.NDArray[np.uint8]) -> None:
        size, most = self.manifest.image_size, self.max_batch
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (size, size, 3):
            raise EngineError(
                f"expected frames uint8 (B, {size}, {size}, 3), got {frames.dtype} {frames.shape}; "
                "make them with Preprocess.frame"
            )
        count = frames.shape[0]
        if count == 0:
            raise EngineError("expected at least one frame, got none; check the list of photos")
        if most is not None and count > most:
            raise EngineError(
                f"built for batches of 1 to {most}, got {count} frames; run with --batch {most}, "
                f"or rebuild with --batch {','.join(map(str, sorted({1, most, count})))}"
            )

    def _checked(self, outputs: Outputs, count: int) -> Outputs:
        code, bits = (count, self.manifest.code_bytes), self.manifest.bits
        if outputs.code.shape != code or outputs.hash.shape != (count, bits):
            raise EngineError(
                f"{self.backend}: expected code {code} and hash {(count, bits)}, got "
                f"{outputs.code.shape} and {outputs.hash.shape}; export the bundle again"
            )
        declared = {name: (count, *one.shape) for name, one in self.manifest.outputs.items()}
        found = {name: value.shape for name, value in outputs.arrays().items()}
        if declared and found != declared:
            raise EngineError(
                f"{self.backend}: expected the outputs {_listed(declared)}, got {_listed(found)}; "
                "export the bundle again"
            )
        return outputs

    @abstractmethod
    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs: ...

    def _free(self) -> None:
        """Free what it holds; called once, when nothing runs."""


@dataclass(frozen=True)
class EngineSource:
    """What an engine is loaded from: a bundle's graph, or what `compile` made of it.

    threads: CPU threads of one run, None for all cores. batches: the sizes it was built for.
    """

    path: Path
    precision: str
    compiled: bool = False
    threads: int | None = None
    batches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Compiled:
    """What `compile` says of the file it wrote.

    flags: what it was built with, JSON-ready; layers: what it computes, None where the backend does
    not tell.
    """

    flags: Mapping[str, Any]
    layers: Layers | None = None


class GraphEngine(Engine):
    """An engine made from a bundle's graph: what a backend module brings.

    graphs: precision -> keys of the bundle's graphs that can serve it, the best first.
    file_name: of the compiled engine. gpu: runs on an NVIDIA GPU. portable: opens a graph without
    compiling it first. opsets: the ONNX opsets that its parser reads, None for all of ours.
    """

    graphs: ClassVar[Graphs]
    file_name: ClassVar[str]
    gpu: ClassVar[bool] = False
    portable: ClassVar[bool] = True
    opsets: ClassVar[range | None] = None

    def __init__(self, manifest: Manifest, source: EngineSource) -> None:
        super().__init__(manifest)
        self.precision = source.precision
        self.source = source

    def describe(self) -> str:
        """Return in one line what runs and where it comes from."""
        origin = "compiled here" if self.source.compiled else f"from {self.source.path.name}"
        return f"{self.backend} {self.precision} ({origin})"

    @classmethod
    def check_arithmetic(cls, precision: str) -> None:
        """Raise EngineError where this machine's numbers are not those of the graph.

        Asked before anything of that precision is compiled or opened.
        """

    @classmethod
    @abstractmethod
    def compile(
        cls, graph: Path, precision: str, manifest: Manifest, target: Path, settings: BuildSettings
    ) -> Compiled:
        """Write the engine file `target`."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return the version of the package that runs the engine."""


def run_in_batches(
    run: Callable[[npt.NDArray[np.uint8]], Outputs],
    frames: npt.NDArray[np.uint8],
    batch: int = BATCH,
    progress: Progress = no_progress,
) -> Outputs:
    """Run a function on frames (N, ...), `batch` at a time, and return all its outputs as one."""
    parts = []
    for start in range(0, max(len(frames), 1), batch):
        parts.append(run(frames[start : start + batch]))
        progress(min(start + batch, len(frames)), len(frames))
    return Outputs.concatenate(parts)


def one_line(error: BaseException | str) -> str:
    """Return an error of a backend in one line of bounded length."""
    return " ".join(str(error).split())[:300]
