"""`fgdeploy export`: settings in, a proven bundle out, or nothing."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy import __version__, photos
from fgdeploy.bundle import GRAPHS, Bundle, Manifest, Output, card, open_bundle, seal
from fgdeploy.bundle.fingerprint import GRAPH_NOTE, fingerprint
from fgdeploy.bundle.folder import check_new
from fgdeploy.core import atomic
from fgdeploy.core.errors import BundleError, CheckpointError, ExportError, ImageError, UsageError
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.evaluation.targets import TARGETS_FILE
from fgdeploy.export import first_card, graph, hash_head, verify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.reference import PyTorchEngine
from fgdeploy.models import assembly as assemblies
from fgdeploy.models import plan
from fgdeploy.models.assembly import Assembly, NetworkSettings
from fgdeploy.models.heads.base import Head
from fgdeploy.models.heads.projection import ProjectionHead
from fgdeploy.models.methods import registry
from fgdeploy.models.network import Network
from fgdeploy.models.options import Options
from fgdeploy.models.weights import trained
from fgdeploy.photos.images import Frame
from fgdeploy.proof.parity import FP32_LIMITS, Parity


def default_target(settings: ExportSettings) -> Path:
    """Return METHOD.fgd: of the method that is asked for, or that the weights were trained as."""
    path = settings.checkpoint
    config = None if path is None else trained.load_config(trained.locate(path))
    name = settings.method or (config.method if config is not None else None)
    return Path(f"{registry.get(name).name}.fgd")


@dataclass(frozen=True)
class Exported:
    """A finished export: the bundle as it lies on disk, and the proof it passed."""

    bundle: Bundle
    parity: Parity


def export_bundle(
    settings: ExportSettings,
    target: Path,
    overwrite: bool = False,
    notify: Notify = silent,
    progress: Progress = no_progress,
) -> Exported:
    """Export the model that `settings` describe to the bundle folder `target`.

    The graph is held against PyTorch before the folder appears under its name; on any error
    nothing is left. Raises FgdeployError of the kind that failed, or OSError from the disk.
    """
    check_new(target, overwrite)
    # The folder comes first of all, so that one that cannot be written shows at once.
    with atomic.new_folder(target, replace=overwrite) as folder:
        assembly = assemblies.choose(settings.network(), notify)
        if caution := assembly.method.caution(assembly.options):
            notify(caution)
        encoder = assembly.encoder(notify)
        head = hash_head.choose(settings, assembly, encoder, notify, progress)
        classes = hash_head.names(settings, assembly, head, encoder.width)
        network = Network(encoder, head, assembly.options).eval().requires_grad_(False)
        extras = _extras(settings, assembly, head)
        deployed = network.deployed(_without(settings, network), settings.logits)
        known = first_card.first_card(
            settings, assembly, _fingerprint(assembly, network.fingerprint())
        )
        notify("writing the graph")
        facts = graph.write_onnx(
            graph.DeployGraph(deployed, extras),
            assembly.source.size,
            folder / GRAPHS["fp32"],
            settings.opset,
            _notes(assembly, network, known),
        )
        _check_pins(assembly, network, facts)
        for name, content in head.files().items():
            (folder / name).write_bytes(content)
        if (targets := hash_head.targets(settings, assembly, head)) is not None:
            targets.save(folder / TARGETS_FILE)
        kept = first_card.carried(known, target, notify)
        (folder / card.FILE).write_bytes(kept.to_bytes())
        draft = seal(folder, describe(settings, assembly, network, facts, deployed, classes))
        notify("comparing it with PyTorch")
        reference = PyTorchEngine(graph.DeployGraph(network.published(), extras), draft.manifest)
        parity = verify.prove(draft, reference, _frames(assembly, settings))
        seal(folder, dataclasses.replace(draft.manifest, parity=_proof(parity)))
        manifest = open_bundle(folder).manifest
    return Exported(Bundle(target, manifest), parity)


def _without(settings: ExportSettings, network: Network) -> frozenset[str]:
    """Return the simplifications to leave out. Raises UsageError for one that there is not."""
    known = network.simplifications()
    if unknown := sorted(settings.without - set(known)):
        raise UsageError(f"--without {','.join(unknown)}: choose from {', '.join(known)}")
    return settings.without


def _extras(settings: ExportSettings, assembly: Assembly, head: Head) -> tuple[str, ...]:
    """Return the outputs beside code, hash and embedding. Raises UsageError."""
    if settings.logits and "logits" not in head.outputs():
        raise UsageError("--logits: this head has no classes; leave --logits out")
    logits = ("logits",) if settings.logits else ()
    return (*logits, *assembly.method.further(assembly.options))


def _frames(assembly: Assembly, settings: ExportSettings) -> Any:
    frames: list[Frame] = []
    if settings.fit_data is not None:
        for photo in photos.spread(
            photos.read(settings.fit_data, columns=settings.columns),
            2 * verify.FRAMES,
            settings.seed,
        ):
            try:
                frames.append(assembly.preprocess.frame(photo.path, photo.reading))
            except ImageError:
                continue
    return verify.frames_for(assembly.source.size, frames, settings.seed)


def _proof(parity: Parity) -> dict[str, Any]:
    return {
        "reference": "pytorch:fp32",
        "candidate": "onnxruntime:fp32",
        **dataclasses.asdict(parity),
    }


def describe(
    settings: ExportSettings,
    assembly: Assembly,
    network: Network,
    facts: graph.GraphFacts,
    deployed: Network,
    classes: tuple[str, ...] = (),
) -> Manifest:
    """Return the manifest of a network and its graph, files and parity not yet known."""
    method, shape, size = assembly.method, assembly.geometry, assembly.source.size
    weights = network.fingerprint()
    rows = plan.record(deployed, size)
    names = network.simplifications()
    return Manifest(
        method=method.name,
        options=assembly.options.to_json(),
        backbone=assembly.source.backbone,
        image_size=size,
        patch_size=shape.patch_size,
        grid=shape.grid,
        depth=shape.depth,
        width=shape.width,
        prefix_tokens=shape.prefix_tokens,
        bits=network.head_bits,
        blocks=rows.runs,
        head=network.head.facts(),
        classes=classes,
        preprocess=assembly.preprocess,
        outputs={
            name: Output(one["type"], tuple(one["shape"][1:]))
            for name, one in facts.outputs.items()
        },
        graph={
            "opset": facts.opset,
            "inputs": facts.inputs,
            "simplifications": [name for name in names if name not in settings.without],
            "pins": list(method.pinned(assembly.options)),
            "half": list(method.half),
        },
        macs={
            "dense": plan.dense(shape).macs,
            "published": plan.record(network.published(), size).macs,
            "exported": rows.macs,
        },
        weights=_weights(settings, assembly, weights),
        deciding=assembly.options.deciding(assembly.geometry),
        fingerprint=_fingerprint(assembly, weights),
        created_by=f"fgdeploy {__version__}",
        limits=FP32_LIMITS.to_json(),
    )


def _weights(settings: ExportSettings, assembly: Assembly, sha256: str) -> dict[str, Any]:
    """Return where weights come from; of a training its folder's name, for its list of photos."""
    entry: dict[str, Any] = {"source": assembly.source.name, "sha256": sha256}
    entry.update(seed=settings.seed, key=settings.weights_key)
    if settings.renames:
        entry["rename"] = list(settings.renames)
    if settings.checkpoint is not None:
        folder = trained.locate(settings.checkpoint).absolute().parent
        if (folder / photos.SPLIT_FILE).is_file():
            entry["run"] = folder.name
    return entry


def _fingerprint(assembly: Assembly, weights: str) -> str:
    return fingerprint(
        assembly.method.name,
        assembly.source.backbone,
        assembly.options.deciding(assembly.geometry),
        assembly.preprocess,
        weights,
    )


def _notes(assembly: Assembly, network: Network, known: card.Card) -> dict[str, str]:
    """Return what the graph says of itself: for calibration its pins, for opening its model.

    And for people who find it alone, what it is. Nothing of it depends on the day, the machine or a
    file's name: equal exports are equal bytes.
    """
    method, options = assembly.method, assembly.options
    licence = known.weights.license
    return {
        "fgdeploy.pins": json.dumps(method.pinned(options)),
        "fgdeploy.half": json.dumps(method.half),
        GRAPH_NOTE: known.fingerprint,
        "fgdeploy.method": method.name,
        "fgdeploy.options": json.dumps(options.to_json(), sort_keys=True),
        "fgdeploy.backbone": assembly.source.backbone,
        "fgdeploy.bits": str(network.head_bits),
        "fgdeploy.weights_sha256": network.fingerprint(),
        "fgdeploy.version": __version__,
        **({"fgdeploy.weights_license": licence} if licence else {}),
    }


def _check_pins(assembly: Assembly, network: Network, facts: graph.GraphFacts) -> None:
    """Refuse a pin that no node has the name of: it would protect nothing.

    A method's dense form may lack what is pinned, as it reduces nothing; and a module that is
    pinned may not have run, as where a stage keeps all that arrive.
    """
    method, options = assembly.method, assembly.options
    usual = method.options()
    if options == options.dense() and usual != usual.dense():
        return
    names = (*facts.nodes, *graph.module_names(network))
    for pattern in (*method.pinned(options), *method.half):
        if not fnmatch.filter(names, pattern):
            raise ExportError(
                f"no node of the graph is called {pattern}, which {method.name} pins; name the "
                "module that decides, or take the pin out"
            )


def rebuild(bundle: Bundle, source: Path | None) -> PyTorchEngine:
    """Return the PyTorch reference of a bundle, from the checkpoint that it was exported from.

    source: the checkpoint; None for pretrained or random weights, which need none. Raises
    ExportError if the weights are not those of the bundle, and what assembling raises.
    """
    manifest = bundle.manifest
    origin = manifest.weights["source"]
    known = origin in ("pretrained", "random")
    if source is None and not known:
        raise UsageError(
            f"the PyTorch reference needs the bundle's checkpoint: --checkpoint {origin}"
        )
    settings = NetworkSettings(
        method=manifest.method,
        backbone=manifest.backbone,
        checkpoint=source,
        weights=origin if known else "pretrained",
        weights_key=manifest.weights.get("key"),
        renames=tuple(manifest.weights.get("rename", ())),
        image_size=manifest.image_size,
        seed=manifest.weights.get("seed", 0),
    )
    options = _options_of(bundle)
    assembly = dataclasses.replace(
        assemblies.choose(settings, held=options), preprocess=manifest.preprocess
    )
    encoder = assembly.encoder()
    head = _head_of(bundle, assembly, encoder.width)
    network = Network(encoder, head, options).eval().requires_grad_(False)
    if network.fingerprint() != manifest.weights["sha256"]:
        raise ExportError(
            f"{source or origin} holds other weights than {bundle.path.name} was exported from; "
            f"give the checkpoint {origin} it came from"
        )
    extras = tuple(name for name in manifest.outputs if name not in graph.ALWAYS)
    return PyTorchEngine(graph.DeployGraph(network.published(), extras), manifest)


def _options_of(bundle: Bundle) -> Options:
    manifest = bundle.manifest
    try:
        return registry.get(manifest.method).options.from_json(manifest.options)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{bundle.path}: its options are not those of {manifest.method} ({error}); export the "
            "bundle again"
        ) from None


def _head_of(bundle: Bundle, assembly: Assembly, width: int) -> Head:
    manifest, name = bundle.manifest, assembly.source.name
    if ProjectionHead.FILE in manifest.files:
        classes = hash_head.class_head(assembly, width) if "logits" in manifest.outputs else None
        if "logits" in manifest.outputs and classes is None:
            raise CheckpointError(f"{name} holds no class head, as {bundle.path.name} has one")
        return ProjectionHead.read(bundle.path / ProjectionHead.FILE, manifest.head, classes)
    state = assembly.source.state or {}
    head = assembly.method.head.from_state(state, width, manifest.bits, name)
    if head is None:
        raise CheckpointError(f"{name} holds no trained head, as {bundle.path.name} has one")
    return head
