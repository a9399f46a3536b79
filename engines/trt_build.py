"""Compile a graph with TensorRT's builder: one way for both flavours, 10.3 to 11."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, BinaryIO

from fgdeploy.core import atomic
from fgdeploy.core.errors import EngineError
from fgdeploy.engines.base import Compiled, one_line
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.trt_layers import SAYS_LAYERS, read
from fgdeploy.engines.trt_objects import freed_in_time


def make_logger(trt: Any) -> Any:
    """Return a logger: TensorRT's `errors` for our own one line, and the engine's `layers`."""
    return _logger_type(trt.ILogger)()


# One class for each package: a class made for each call is a cycle, and with it what it holds.
@functools.cache
def _logger_type(base: Any) -> Any:
    class Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (base.INTERNAL_ERROR, base.ERROR):
                self.errors.append(message)
            elif SAYS_LAYERS in message:
                self.layers += message

    return Logger


@functools.cache
def _writer_type(base: Any) -> Any:
    class Writer(base):  # type: ignore[misc]
        def __init__(self, stream: BinaryIO) -> None:
            base.__init__(self)
            self.stream = stream

        def write(self, data: bytes) -> int:
            return self.stream.write(data)

    return Writer


def said(logger: Any) -> str:
    """Return what TensorRT said went wrong, in one line."""
    return one_line("; ".join(logger.errors[:3])) or "TensorRT gave no reason"


def compile_engine(
    trt: Any, graph: Path, frame: tuple[int, int, int], target: Path, settings: BuildSettings
) -> Compiled:
    """Write the engine of an ONNX file; return the flags it was built with, and its layers.

    The graph says which precision each tensor has (strongly typed), so TensorRT changes none.
    frame: (S, S, 3). Raises EngineError with the parser's or the builder's words.
    """
    with freed_in_time():
        return _compile(trt, graph, frame, target, settings)


def _compile(
    trt: Any, graph: Path, frame: tuple[int, int, int], target: Path, settings: BuildSettings
) -> Compiled:
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    typed = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # 1 in 10.3, 0 in 11
    network = builder.create_network(1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    # By its path: the bytes are held once, by the parser, and not by Python too.
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise EngineError(
            f"{trt.__name__} cannot read {graph.name}: {one_line('; '.join(errors[:3]))}; "
            "export again with --opset 18, or use another backend"
        )
    config, flags = _config(trt, builder, frame, settings)
    cache = _timing_cache(config, settings, flags)
    _write(trt, builder, network, config, target, logger)
    if cache is not None and settings.timing_cache is not None:
        with atomic.new_file(settings.timing_cache) as stream:
            stream.write(config.get_timing_cache().serialize())
    return Compiled(flags, read(trt, network, logger.layers))


def _config(
    trt: Any, builder: Any, frame: tuple[int, int, int], settings: BuildSettings
) -> tuple[Any, dict[str, Any]]:
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("frames", *((batch, *frame) for batch in settings.profile))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{trt.__name__} refuses the batches {settings.profile}; give others")
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    targets = sorted(set(settings.compute_capabilities), key=float)
    if targets:
        config.num_compute_capabilities = len(targets)
    for index, capability in enumerate(targets):
        name = f"SM{capability.replace('.', '')}"
        known = getattr(trt.ComputeCapability, name, None)
        if known is None or not config.set_compute_capability(known, index):
            raise EngineError(
                f"{trt.__name__} {trt.__version__} cannot compile for compute capability "
                f"{capability}; leave it out, or install a later version"
            )
    return config, {
        "strongly_typed": True,
        "profile": list(settings.profile),
        "workspace_mib": settings.workspace_mib,
        "hardware_compatible": settings.hardware_compatible,
    }


def _timing_cache(config: Any, settings: BuildSettings, flags: dict[str, Any]) -> Any:
    """Give the builder the cache file's timings; `flags` says what became of them."""
    if settings.timing_cache is None:
        return None
    held = settings.timing_cache.read_bytes() if settings.timing_cache.exists() else b""
    cache = config.create_timing_cache(held)
    if cache is not None and config.set_timing_cache(cache, False):
        flags["timing_cache"] = "used" if held else "new"
        return cache
    # TensorRT refuses timings of another GPU or version: begin anew.
    flags["timing_cache"] = "of another device or version: ignored and replaced"
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def _write(trt: Any, builder: Any, network: Any, config: Any, target: Path, logger: Any) -> None:
    with open(target, "xb") as stream:
        if hasattr(builder, "build_serialized_network_to_stream"):  # 10.13: not held in memory
            writer = _writer_type(trt.IStreamWriter)(stream)
            done = builder.build_serialized_network_to_stream(network, config, writer)
        else:
            plan = builder.build_serialized_network(network, config)
            done = plan is not None
            if done:
                stream.write(plan)
    if not done or target.stat().st_size == 0:
        raise EngineError(
            f"{trt.__name__} cannot compile the graph: {said(logger)}; try another precision, or a "
            "smaller --batch or --workspace-mib"
        )
