"""Who is timed: from the bundles, files, engines and rivals that were named to contenders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core.errors import EngineError, FgdeployError, UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.engines import available, find
from fgdeploy.engines.backends import check_name, engine_type
from fgdeploy.engines.choosing import default_engine, graph_key
from fgdeploy.engines.record import RECORD, Built
from fgdeploy.proof import bare_graph, plain_timm
from fgdeploy.proof.contenders import Contender

_TIMM = {"timm": plain_timm.EAGER, "timm-compile": plain_timm.COMPILED}
_PLAIN = {"ort": "onnxruntime:fp32", "openvino": "openvino:fp32"}
AGAINST = (*_TIMM, *_PLAIN)


@dataclass
class Lineup:
    """Who is timed, and who cannot be, with the reason. bundles: those that contenders run."""

    contenders: list[Contender] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    bundles: dict[str, Bundle] = field(default_factory=dict)


def line_up(
    sources: Sequence[Path],
    batches: Sequence[int],
    engines: Sequence[str] = (),
    against: Sequence[str] = (),
    device: str = "cpu",
    folder: Path = Path(),
    notify: Notify = silent,
) -> Lineup:
    """Return who is timed on this machine.

    sources: bundles, ONNX files, and engines inside a bundle. engines: BACKEND[:PRECISION] of each,
    by default all that were built, or else the graphs that open directly. against: of `AGAINST`,
    for the backbone and size of each bundle; device: cpu or cuda, where they run. folder: where
    what they need is written. Raises UsageError for a name that can never be right, BundleError for
    a source that is nothing to run.
    """
    wanted = [_checked(name) for name in engines]
    _check_rivals(against, device)
    lineup = Lineup()
    places = {os.path.realpath(source): source for source in reversed(sources)}
    sources = list(places.values())[::-1]
    labels = _labels(sources)
    for source in sources:
        built = _engine_at(source)
        if built is not None:
            _add_bundle(lineup, built.parent.parent, labels[source], batches, [built.name])
        elif _may_be_graph(source):
            _add_graph(lineup, source, labels[source], batches, wanted)
        else:
            _add_bundle(lineup, source, labels[source], batches, wanted)
    if against and not lineup.bundles:
        raise UsageError(
            "--against takes the backbone and size of a bundle, and none was given; name one"
        )
    _add_rivals(lineup, against, batches, device, folder, notify)
    return lineup


# Files that say themselves, when they are opened as a bundle, what they are.
_NO_GRAPHS = (".fgdz", ".npz", ".safetensors", ".pth", ".pt", ".csv", ".tsv", ".jpg", ".png")


def _may_be_graph(source: Path) -> bool:
    suffix = source.suffix.lower()
    return (source.is_file() and suffix not in _NO_GRAPHS) or suffix == ".onnx"


def _checked(name: str) -> str:
    """Return BACKEND:PRECISION, fp32 where none is named, or `auto`."""
    if name == "auto":
        return name
    backend, _, precision = name.partition(":")
    check_name(backend)
    if backend == "auto":
        raise UsageError(f"--engine {name}: auto stands alone; name the backend, or auto")
    known = ("fp32", "fp16", "bf16", "fp8", "int8")
    if precision not in ("", *known):
        raise UsageError(f"--engine {name}: no precision {precision!r}; choose {', '.join(known)}")
    return f"{backend}:{precision or 'fp32'}"


def _check_rivals(against: Iterable[str], device: str) -> None:
    for name in against:
        if name not in AGAINST:
            raise UsageError(f"--against {name}: choose {', '.join(AGAINST)}")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: choose cpu or cuda")


def _labels(sources: Sequence[Path]) -> dict[Path, str]:
    """Return how each source is called: its name, or all of its path where names are alike."""
    names = [source.stem if source.suffix == ".fgd" else source.name for source in sources]
    return {
        source: name if names.count(name) == 1 else str(source)
        for source, name in zip(sources, names, strict=True)
    }


def _engine_at(source: Path) -> Path | None:
    """Return the folder of an engine in a bundle that a path means, None for anything else."""
    folder = source if source.is_dir() else source.parent
    absolute = Path(os.path.abspath(folder))
    return absolute if (absolute / RECORD).is_file() else None


def _add_bundle(
    lineup: Lineup, path: Path, label: str, batches: Sequence[int], wanted: Sequence[str]
) -> None:
    bundle = open_bundle(path)
    lineup.bundles[str(path)] = bundle
    built = find(bundle)
    folders = {one.folder.name: one for one in built}
    by_name = {one.record.name: one for one in built if one.record is not None}
    names = _names(bundle, built, lineup, label)
    if wanted:
        names = []
        for name in wanted:
            if name in folders:  # an engine that was named by its place
                one = folders[name]
                if one.record is None:
                    raise EngineError(one.problem)
                name = one.record.name
            names.append(_default(bundle) if name == "auto" else name)
    for name in dict.fromkeys(names):
        lineup.contenders.append(
            Contender(
                f"{label} {name}",
                "bundle",
                str(path),
                tuple(batches),
                name,
                macs=bundle.manifest.macs.get("exported"),
                notes=_marks(by_name.get(name)),
            )
        )


def _names(bundle: Bundle, built: Sequence[Built], lineup: Lineup, label: str) -> list[str]:
    """Return the engines that were built, or the graphs that open directly here."""
    for one in built:
        if one.record is None:
            lineup.left_out[f"{label} {one.folder.name}"] = one.problem
    if names := [one.record.name for one in built if one.record is not None]:
        return names
    return [f"{name}:{precision}" for name in available() for precision in _direct(bundle, name)]


def _direct(bundle: Bundle, backend: str) -> list[str]:
    kind = engine_type(backend)
    if not kind.portable:
        return []
    # On a CPU, FP16 graphs run as fp32
    precisions = [one for one in kind.graphs if one != "fp16" or kind.gpu]
    return [one for one in precisions if graph_key(bundle, kind, one) is not None]


def _default(bundle: Bundle) -> str:
    return default_engine(bundle)[0]


def _marks(built: Built | None) -> tuple[str, ...]:
    if built is None or built.record is None or not built.record.failed:
        return ()
    return ("it failed parity, so it runs only by name",)


def _add_graph(
    lineup: Lineup, path: Path, label: str, batches: Sequence[int], wanted: Sequence[str]
) -> None:
    bare_graph.read_inputs(path)  # what it cannot be is said before anything is timed
    names = [f"{name}:fp32" for name in bare_graph.OPENING if name in available()]
    for name in dict.fromkeys(wanted or names):
        name = names[0] if name == "auto" and names else name
        lineup.contenders.append(
            Contender(f"{label} {name}", "graph", str(path), tuple(batches), name)
        )


def _add_rivals(
    lineup: Lineup,
    against: Sequence[str],
    batches: Sequence[int],
    device: str,
    folder: Path,
    notify: Notify,
) -> None:
    models = {
        (bundle.manifest.backbone, bundle.manifest.image_size): bundle.manifest.macs.get("dense")
        for bundle in lineup.bundles.values()
    }
    for number, ((backbone, size), macs) in enumerate(models.items()):
        of = f" {backbone} {size}" if len(models) > 1 else ""
        plain = folder / f"plain-{number}.onnx"
        problem: str | None = None
        for rival in dict.fromkeys(against):
            if rival in _TIMM:
                one = Contender(f"{rival}{of}", "timm", backbone, tuple(batches), _TIMM[rival])
                lineup.contenders.append(
                    dataclasses.replace(
                        one, size=size, device=device, scratch=str(folder), macs=macs
                    )
                )
                continue
            engine = _ENGINES[rival](device)
            name = f"timm plain export{of}, {engine}"
            if problem is None:
                notify(f"exporting timm's {backbone} as it stands")
                problem = _exported(backbone, size, plain)
            if problem:
                lineup.left_out[name] = problem
                continue
            lineup.contenders.append(
                Contender(name, "graph", str(plain), tuple(batches), engine, macs=macs)
            )


_ENGINES: Mapping[str, Callable[[str], str]] = {
    "ort": lambda device: "onnxruntime-cuda:fp32" if device == "cuda" else _PLAIN["ort"],
    "openvino": lambda device: _PLAIN["openvino"],
}


def _exported(backbone: str, size: int, target: Path) -> str:
    """Export timm's model as it stands; return why that failed, or nothing."""
    try:
        plain_timm.export_apart(backbone, size, target)
    except FgdeployError as error:
        return f"its export failed: {error}"
    return ""
