"""`config.pbtxt`, made as Triton's own protobuf message, and held to what that does not check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgdeploy import __version__
from fgdeploy.bundle import Manifest
from fgdeploy.core.errors import DataError, MissingDependency, UsageError
from fgdeploy.core.text import plain
from fgdeploy.triton.model_tensors import ServedTensor
from fgdeploy.triton.served_file import ServedFile
from fgdeploy.triton.serving_settings import ServingSettings
from fgdeploy.triton.warm_up import WarmUp

FILE = "config.pbtxt"
LABELS = "labels.txt"
FINGERPRINT = "fgdeploy.fingerprint"  # with ".N": of version N


@dataclass(frozen=True)
class ServedModel:
    """All that a configuration is made of."""

    name: str
    settings: ServingSettings
    file: ServedFile
    manifest: Manifest
    frames: ServedTensor
    outputs: Sequence[ServedTensor]
    warm_ups: Sequence[WarmUp]
    max_batch: int

    @property
    def preferred(self) -> list[int]:
        """Return the batch sizes worth waiting for: a single frame never is."""
        return preferred_batches(self.file.batches, self.max_batch)


def message_type() -> Any:
    """Return Triton's ModelConfig. Raises MissingDependency without tritonclient."""
    return _protobuf().ModelConfig


def _protobuf() -> Any:
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError:
        raise MissingDependency("tritonclient", "triton", "writing for Triton") from None
    return model_config_pb2


def largest_batch(batches: Sequence[int], wished: int | None, compiled: bool) -> int:
    """Return max_batch_size: as wished, or the largest built for.

    compiled: a plan takes no more than it was built for. Raises UsageError for more.
    """
    most = max(batches)
    if wished is not None and compiled and wished > most:
        raise UsageError(
            f"--max-batch {wished}: the engine was built for {most} at most; build it again with "
            f"--batch 1,{wished}"
        )
    return most if wished is None else wished


def preferred_batches(batches: Sequence[int], most: int) -> list[int]:
    """Return preferred_batch_size: those built for, up to the largest, which is always one."""
    return sorted({size for size in (*batches, most) if 1 < size <= most})


def make(model: ServedModel) -> Any:
    """Return the ModelConfig message. Raises MissingDependency without tritonclient."""
    settings = model.settings
    config = _protobuf().ModelConfig(
        name=model.name,
        backend=settings.backend,
        max_batch_size=model.max_batch,
        default_model_filename=model.file.name,
        input=[_tensor(model.frames)],
        output=[
            {**_tensor(one), **({"label_filename": LABELS} if _labelled(one, model) else {})}
            for one in model.outputs
        ],
        instance_group=[
            {"count": settings.instances, "kind": f"KIND_{settings.device.upper()}"},
        ],
        # What was served stays served: a client may name a version.
        version_policy={"all": {}},
        model_warmup=[_warm_up(one, model.frames) for one in model.warm_ups],
        parameters={key: {"string_value": value} for key, value in parameters(model).items()},
    )
    if model.preferred:
        config.dynamic_batching.preferred_batch_size.extend(model.preferred)
        config.dynamic_batching.max_queue_delay_microseconds = settings.queue_delay_us
    return config


def _tensor(one: ServedTensor) -> dict[str, Any]:
    return {"name": one.name, "data_type": one.type, "dims": list(one.dims)}


def _labelled(one: ServedTensor, model: ServedModel) -> bool:
    return one.name == "logits" and bool(model.manifest.classes)


def _warm_up(one: WarmUp, frames: ServedTensor) -> dict[str, Any]:
    entry = {"data_type": frames.type, "dims": list(frames.dims), "input_data_file": one.file}
    return {"name": one.name, "batch_size": one.batch, "inputs": {frames.name: entry}}


def parameters(model: ServedModel) -> dict[str, str]:
    """Return what a client asks before it compares a code: model, bits, pruning, preprocessing."""
    manifest = model.manifest
    found = {
        FINGERPRINT: manifest.fingerprint,
        f"{FINGERPRINT}.{model.settings.version}": manifest.fingerprint,
        "fgdeploy.bits": str(manifest.bits),
        "fgdeploy.method": manifest.method,
        "fgdeploy.backbone": manifest.backbone,
        "fgdeploy.pruning": _json([[rows.block, rows.tokens] for rows in manifest.blocks]),
        "fgdeploy.preprocess": _json(manifest.preprocess.to_json()),
        "fgdeploy.graph": model.file.graph,
        "fgdeploy.created_by": f"fgdeploy {__version__}",
    }
    for number, need in enumerate(model.file.needs):
        found[f"fgdeploy.needs.{number}"] = need
    return found


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def to_text(config: Any, needs: Sequence[str] = ()) -> str:
    """Return a message as `config.pbtxt`, and what the server needs as comments."""
    from google.protobuf import text_format

    notes = [f"# Written by fgdeploy {__version__}."]
    notes += [f"# Needs {plain(need)}." for need in needs]
    return "\n".join([*notes, text_format.MessageToString(config)])


def from_text(text: str) -> Any:
    """Return the message of a `config.pbtxt`. Raises DataError for what is none."""
    config = message_type()()
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise DataError(f"{FILE} is not a model configuration of Triton ({error})") from None


def check(config: Any, model: ServedModel, warm_up_bytes: Mapping[str, int]) -> None:
    """Hold a message to the graph and to Triton's own rules, which the protobuf does not know.

    warm_up_bytes: name of each warm-up file -> its size. Raises DataError with the first breach.
    """
    for breach in _breaches(config, model, warm_up_bytes):
        raise DataError(f"{FILE} of {model.name} would not load: {breach}")


def _breaches(config: Any, model: ServedModel, sizes: Mapping[str, int]) -> list[str]:
    types = _protobuf().DataType
    found = []
    if config.name != model.name:
        found.append(f"it is named {config.name}, and its folder {model.name}")
    if config.max_batch_size < 1:
        found.append("max_batch_size is 0, and the graph's first dimension is the batch")
    if max(model.file.batches) < config.max_batch_size and model.file.record is not None:
        found.append("max_batch_size is more than the engine was built for")
    for size in config.dynamic_batching.preferred_batch_size:
        if not 1 <= size <= config.max_batch_size:
            found.append(f"preferred_batch_size {size} is not 1 to {config.max_batch_size}")
    held = [(one.name, types.Name(one.data_type), tuple(one.dims)) for one in config.input]
    held += [(one.name, types.Name(one.data_type), tuple(one.dims)) for one in config.output]
    graph = [(one.name, one.type, one.dims) for one in (model.frames, *model.outputs)]
    if held != graph:
        found.append(f"it declares {held}, and the graph has {graph}")
    for run in config.model_warmup:
        if not 1 <= run.batch_size <= config.max_batch_size:
            found.append(f"warm-up {run.name} has {run.batch_size} frames")
        for name, entry in run.inputs.items():
            size = sizes.get(entry.input_data_file)
            if (name, size) != (model.frames.name, model.frames.bytes):
                found.append(f"warm-up file {entry.input_data_file} has {size} bytes")
    return found
