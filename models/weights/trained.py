"""What a training leaves beside its weights: a JSON that makes `export --checkpoint` need no flags.

`NAME.safetensors` holds tensors under timm's names with `head` and `head_hash`; `NAME.json` says
what they are: method, options, backbone, size, preprocessing, class names, the weights' sha256.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from fgdeploy.bundle import sha256
from fgdeploy.bundle.manifest_schema import BITS, OPTIONS, PREPROCESS, SIDE
from fgdeploy.core import atomic, json_schema
from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.methods import registry
from fgdeploy.models.options import Options
from fgdeploy.photos.images import Preprocess

SCHEMA_VERSION = 2  # 1 had `stages` in place of `options`: EET was all there was
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class TrainedConfig:
    """What trained weights are. sizes in pixels; options as they were resolved; classes by number.

    training: how they came about (recipe, epochs, seed, scores), for people to read.
    """

    method: str
    backbone: str
    image_size: int
    bits: int
    options: Options
    preprocess: Preprocess
    classes: tuple[str, ...]
    training: Mapping[str, Any] = field(default_factory=dict)


def locate(checkpoint: Path) -> Path:
    """Return the weights that are meant: a file as it is, of a training's folder its model.

    Raises CheckpointError for the folder of a training that has not come to its end.
    """
    if not checkpoint.is_dir():
        return checkpoint
    weights = checkpoint / WEIGHTS_FILE
    if not weights.is_file() and (checkpoint / "state.pt").is_file():
        raise CheckpointError(
            f"{checkpoint} is a training that is not finished; go on with it: fgdeploy train ... "
            f"-o {checkpoint} --resume"
        )
    return weights


def save(weights: Path, tensors: Mapping[str, Tensor], config: TrainedConfig) -> None:
    """Write the safetensors file `weights` and the JSON beside it, each atomically.

    Raises OSError as the system gives it (no space, read-only).
    """
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic.new_file(weights) as stream:
        stream.write(safetensors.torch.save(whole, metadata={"format": "pt"}))
    entry = {
        "schema_version": SCHEMA_VERSION,
        "weights": {"file": weights.name, "sha256": sha256(weights)},
        **{f.name: getattr(config, f.name) for f in dataclasses.fields(config)},
        "options": config.options.to_json(),
        "preprocess": config.preprocess.to_json(),
    }
    text = json.dumps(entry, indent=2, ensure_ascii=False, allow_nan=False)
    atomic.write_text(weights.with_suffix(".json"), text + "\n")


def load_config(weights: Path) -> TrainedConfig | None:
    """Return the config beside `weights`, None where there is none of ours.

    Raises CheckpointError for one that is damaged, of another schema, or of other weights.
    """
    path = weights.with_suffix(".json")
    if not path.is_file() or path == weights:
        return None
    try:
        entry = json_schema.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not readable JSON ({error}); copy it again, or move it away to export by "
            "flags"
        ) from None
    if not isinstance(entry, dict) or "schema_version" not in entry or "weights" not in entry:
        return None  # somebody else's JSON
    if entry["schema_version"] not in (1, SCHEMA_VERSION):
        version = json_schema.said(entry["schema_version"])
        raise CheckpointError(
            f"{path}: schema version {version} is not known here (expected {SCHEMA_VERSION}); "
            "install the fgdeploy that wrote it"
        )
    method = entry.get("method")
    if isinstance(method, str) and method not in registry.METHODS:
        raise CheckpointError(
            f"{path}: trained as {method!r}, which is no method here (there is "
            f"{', '.join(registry.METHODS)}); register the method first, or move the JSON away"
        )
    try:
        config, expected = _parse(entry), entry["weights"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:  # a method's own options raise any of them
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path} is damaged: {reason}; copy it again, or move it away to export by flags"
        ) from None
    if weights.is_file() and sha256(weights) != expected:
        raise CheckpointError(
            f"{path} describes other weights than {weights.name} holds now; copy both again, or "
            "move the JSON away to export by flags"
        )
    return config


def _parse(entry: Mapping[str, Any]) -> TrainedConfig:
    json_schema.sane(entry)
    _SCHEMA(entry, "")
    if entry["schema_version"] == 1:
        json_schema.table({"stages": json_schema.anything})(entry, "")
        entry = {**entry, "options": {"stages": entry["stages"]}}
    json_schema.table({"options": OPTIONS})(entry, "")
    return TrainedConfig(
        method=entry["method"],
        backbone=entry["backbone"],
        image_size=entry["image_size"],
        bits=entry["bits"],
        options=registry.get(entry["method"]).options.from_json(entry["options"]),
        preprocess=Preprocess.from_json(entry["preprocess"]),
        classes=tuple(entry["classes"]),
        training=dict(entry["training"]),
    )


_SCHEMA = json_schema.table(
    {
        "weights": json_schema.table({"sha256": json_schema.sha256}),
        **dict.fromkeys(("method", "backbone"), json_schema.NAME),
        "image_size": SIDE,
        "bits": BITS,
        "preprocess": PREPROCESS,
        "classes": json_schema.list_of(json_schema.TEXT),
        "training": json_schema.table({}, {"recipe": json_schema.TEXT}),
    }
)
