"""`fgdeploy export`: settings in, a proven bundle out, or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy import __version__, photos
from fgdeploy.bundle import GRAPHS, Bundle, Manifest, StageInfo, open_bundle, seal
from fgdeploy.core import atomic
from fgdeploy.core.errors import BundleError, ExportError, ImageError, UsageError
from fgdeploy.evaluation.targets import TARGETS_FILE
from fgdeploy.export import graph, verify
from fgdeploy.export.assemble import Model, Notify, Progress, assemble
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.reference import PyTorchEngine
from fgdeploy.models import checkpoint, macs, vit
from fgdeploy.models.heads import ProjectionHead
from fgdeploy.models.stages import tokens_in
from fgdeploy.photos.images import Frame
from fgdeploy.proof.parity import FP32_LIMITS, Parity
from fgdeploy.training.projection import Projection

HEAD_FILE = "head.npz"


@dataclass(frozen=True)
class Exported:
    """A finished export: the bundle as it lies on disk, and the proof it passed."""

    bundle: Bundle
    parity: Parity


def export_bundle(
    settings: ExportSettings,
    target: Path,
    overwrite: bool = False,
    notify: Notify = lambda message: None,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Export the model that `settings` describe to the bundle folder `target`.

    The graph is held against PyTorch before the folder appears under its name; on any error
    nothing is left. Raises FgdeployError of the kind that failed, or OSError from the disk.
    """
    if target.suffix != ".fgd":
        raise UsageError(f"-o {target}: a bundle's name ends in .fgd")
    if target.exists() and not overwrite:
        raise BundleError(f"{target} is there already; pass --overwrite, or another -o")
    if target.exists() and not (target / "manifest.json").is_file():
        raise BundleError(f"{target} is no bundle, so it is not overwritten; give another -o")
    if not target.parent.is_dir():
        raise BundleError(f"no folder {target.parent} to write {target.name} into; create it first")
    if unknown := sorted(settings.without - set(graph.SIMPLIFICATIONS)):
        raise UsageError(
            f"--without {','.join(unknown)}: choose from {', '.join(graph.SIMPLIFICATIONS)}"
        )
    # The folder comes first of all, so that one that cannot be written shows at once.
    with atomic.new_folder(target, replace=overwrite) as folder:
        model = assemble(settings, notify, progress)
        if settings.logits and isinstance(model.head, ProjectionHead):
            raise UsageError("--logits needs the trained head; a fitted head has no classes")
        notify("writing the graph")
        facts = graph.write_onnx(
            model.deployed(settings.logits, settings.without),
            model.image_size,
            folder / GRAPHS["fp32"],
            settings.opset,
        )
        _save_head(model, folder)
        if model.targets is not None:
            model.targets.save(folder / TARGETS_FILE)
        draft = seal(folder, describe(model, facts, settings))
        notify("comparing it with PyTorch")
        reference = PyTorchEngine(model.published(settings.logits), draft.manifest)
        parity = verify.prove(draft, reference, _frames(model, settings))
        seal(folder, dataclasses.replace(draft.manifest, parity=_proof(parity)))
        manifest = open_bundle(folder).manifest
    return Exported(Bundle(target, manifest), parity)


def _frames(model: Model, settings: ExportSettings) -> Any:
    frames: list[Frame] = []
    if settings.fit_data is not None:
        for photo in photos.spread(
            photos.read(settings.fit_data), 2 * verify.FRAMES, settings.seed
        ):
            try:
                frames.append(model.preprocess.frame(photo.path))
            except ImageError:
                continue
    return verify.frames_for(model.image_size, frames, settings.seed)


def _proof(parity: Parity) -> dict[str, Any]:
    return {
        "reference": "pytorch:fp32",
        "candidate": "onnxruntime:fp32",
        **dataclasses.asdict(parity),
    }


def describe(model: Model, facts: graph.GraphFacts, settings: ExportSettings) -> Manifest:
    """Return the manifest of a model and its graph, files and parity not yet known."""
    shape = vit.shape(model.vit)
    arriving = tokens_in(model.stages, shape.patches)
    stages = tuple(
        StageInfo(stage.block, count, stage.keep)
        for stage, count in zip(model.stages, arriving, strict=True)
    )
    weights = checkpoint.fingerprint(model.vit, model.head)
    early, last = "early-gather" not in settings.without, "cls-last" not in settings.without
    return Manifest(
        method=model.method.name,
        backbone=model.backbone,
        image_size=model.image_size,
        patch_size=shape.patch_size,
        depth=shape.depth,
        width=shape.width,
        prefix_tokens=shape.prefix_tokens,
        bits=model.bits,
        stages=stages,
        head=model.head_facts,
        preprocess=model.preprocess,
        graph={
            "opset": facts.opset,
            "inputs": facts.inputs,
            "outputs": facts.outputs,
            "simplifications": [n for n in graph.SIMPLIFICATIONS if n not in settings.without],
        },
        macs={
            "dense": macs.dense(shape),
            "published": macs.published(shape, model.stages),
            "exported": macs.exported(shape, model.stages, early, last),
        },
        weights={"source": model.source, "sha256": weights, "seed": settings.seed},
        fingerprint=_fingerprint(model, stages, weights),
        created_by=f"fgdeploy {__version__}",
        thresholds=FP32_LIMITS.to_json(),
    )


def _fingerprint(model: Model, stages: tuple[StageInfo, ...], weights: str) -> str:
    """Hash all that decides a code: not tool versions, opset or precision."""
    facts = {
        "method": model.method.name,
        "backbone": model.backbone,  # the number of heads, say, shows in no weight
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "preprocess": model.preprocess.to_json(),
        "weights": weights,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _save_head(model: Model, folder: Path) -> None:
    """Keep a fitted head beside the graph: it is what PyTorch needs to give the same codes."""
    if isinstance(model.head, ProjectionHead):
        linear = model.head.linear
        np.savez(folder / HEAD_FILE, weight=linear.weight.numpy(), bias=linear.bias.numpy())


def rebuild(bundle: Bundle, source: Path | None) -> PyTorchEngine:
    """Return the PyTorch reference of a bundle, from the checkpoint that it was exported from.

    source: the checkpoint; None for pretrained or random weights, which need none. Raises
    ExportError if the weights are not those of the bundle, and what `assemble` raises.
    """
    from fgdeploy.models.stages import Stage

    manifest = bundle.manifest
    origin = str(manifest.weights.get("source"))
    known = origin in ("pretrained", "random")
    if source is None and not known:
        raise UsageError(
            f"the PyTorch reference needs the bundle's checkpoint: --checkpoint {origin}"
        )
    fitted, projection = HEAD_FILE in manifest.files, None
    if fitted:
        with np.load(bundle.path / HEAD_FILE, allow_pickle=False) as data:
            projection = Projection(data["weight"], data["bias"])
    settings = ExportSettings(
        method=manifest.method,
        backbone=manifest.backbone,
        checkpoint=source,
        weights=origin if known else "pretrained",
        head="lsh" if fitted else "trained",
        bits=manifest.bits,
        stages=tuple(Stage(stage.block, stage.keep) for stage in manifest.stages),
        image_size=manifest.image_size,
        seed=int(manifest.weights.get("seed", 0)),
    )
    model = dataclasses.replace(
        assemble(settings, projection=projection), preprocess=manifest.preprocess
    )
    if checkpoint.fingerprint(model.vit, model.head) != manifest.weights.get("sha256"):
        raise ExportError(
            f"{source or origin} holds other weights than {bundle.path.name} was exported from; "
            f"give the checkpoint {origin} it came from"
        )
    return PyTorchEngine(model.published(), manifest)
