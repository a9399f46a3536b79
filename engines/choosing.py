"""Which engine of a bundle to run here: one that was built and fits, or a graph opened directly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fgdeploy.bundle import GRAPHS, Bundle, trust
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, FgdeployError, MissingDependency, UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.core.text import shown
from fgdeploy.engines import record
from fgdeploy.engines.backends import BACKENDS, available, check_name, engine_type, installed
from fgdeploy.engines.base import Engine, EngineSource, GraphEngine, one_line
from fgdeploy.engines.build_settings import check_threads
from fgdeploy.engines.matching import mismatches
from fgdeploy.engines.record import Built, Record
from fgdeploy.engines.standing import Choice, Fitting, choices

Accept = Callable[[Engine], None]
_CLOSES_IN_S = 1.0  # an engine that is refused; one that hangs never does


def any_engine(engine: Engine) -> None:
    """Accept whatever engine was opened."""


def open_engine(
    bundle: Bundle,
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    fallback: bool = False,
    notify: Notify = silent,
    accept: Accept = any_engine,
) -> Engine:
    """Open the engine to run here; its `reason` says why it was chosen.

    backend: a name, NAME:PRECISION, or `auto`. Engines built for this machine come first, those
    before others that gained most on fp32 when they were timed; next a graph opened directly, where
    the backend can: fp32, or the precision asked for. An engine that failed parity, or was no
    faster than fp32, is taken only when its precision is named. If what was built does not fit this
    machine, that is an error; with `fallback` the next best runs instead, and `notify` is told.
    threads: CPU threads of one run, None for all cores. accept: called with each engine that was
    opened; one that it raises an EngineError for does not fit, as `proof.self_test` finds.
    Raises MissingDependency, EngineError, BundleError (no such precision) or UsageError.
    """
    check_threads(threads)
    wish = _Wish.read(backend, precision)
    fitting, misfits = _sort(bundle, wish)
    failures: list[str] = []
    for choice in _choices(fitting, wish):
        try:
            engine = accepted(_open_choice(bundle, choice, threads), accept)
        except FgdeployError as error:
            if not fallback:
                raise
            failures.append(str(error))
            continue
        engine.reason = choice.reason
        return _told(engine, failures, notify)
    refused = [*failures, *(misfit.words for misfit in misfits)]
    # A graph of the precision asked for gives the same numbers; `auto` might change them.
    if not fallback and (misfits if wish.precision == "auto" else any(m.broken for m in misfits)):
        raise EngineError(_none_fits(misfits))
    engine = _open_graph(bundle, wish, threads, refused, fallback, accept)
    engine.reason = f"no other engine fits: {'; '.join(refused)}" if refused else "none built"
    return _told(engine, refused if fallback else [], notify)


def default_engine(bundle: Bundle) -> tuple[str, str]:
    """Return the name of the engine that `open_engine` takes by itself, and why.

    Nothing is loaded. Raises EngineError where engines were built and none fits.
    """
    wish = _Wish("auto", "auto")
    fitting, misfits = _sort(bundle, wish)
    for choice in _choices(fitting, wish):
        return choice.name, choice.reason
    if misfits:
        raise EngineError(_none_fits(misfits))
    return f"{_portable('fp32')[0]}:fp32", "none built"


@dataclass(frozen=True)
class _Wish:
    """What was asked for; `auto` for whatever is best."""

    backend: str
    precision: str

    @classmethod
    def read(cls, backend: str, precision: str) -> _Wish:
        for word, value in (("backend", backend), ("precision", precision)):
            if not isinstance(value, str):
                raise UsageError(
                    f"{word} {shown(value)}: expected its name; leave it out for the best"
                )
        name, _, inside = backend.partition(":")
        if inside and precision not in ("auto", inside):
            raise UsageError(f"backend {backend} and precision {precision} differ; name only one")
        if name != "auto":
            check_name(name)
        return cls(name, inside or precision)

    def covers(self, built: Built) -> bool:
        """Tell whether an engine may be meant; a broken one is known by its folder's name only."""
        entry, name = built.record, f"{built.folder.name}-"
        if entry is None:
            backend, precision = name.startswith(f"{self.backend}-"), f"-{self.precision}-" in name
        else:
            backend, precision = entry.backend == self.backend, entry.precision == self.precision
        return (self.backend == "auto" or backend) and (self.precision == "auto" or precision)


@dataclass(frozen=True)
class _Misfit:
    """An engine that is not for this machine, in words, and how to build one that is."""

    words: str
    remedy: str
    broken: bool


def _sort(bundle: Bundle, wish: _Wish) -> tuple[list[Fitting], list[_Misfit]]:
    """Return the engines that fit and those that do not."""
    fitting: list[Fitting] = []
    misfits = []
    for built in filter(wish.covers, record.find(bundle)):
        entry = built.record
        if entry is None:
            misfits.append(_Misfit(built.problem, "remove the folder or build it again", True))
        elif entry.device.get("name") is None and not machine.gpus() and wish.backend == "auto":
            continue  # compiled here for GPUs elsewhere: nobody meant it for this machine
        elif _unsigned(bundle, built, entry):
            words = f"{built.folder.name}: not signed, as {trust.SIGNED_ENGINES} demands"
            misfits.append(_Misfit(words, "its owner signs it with: fgdeploy sign --engines", True))
        elif why := _why_not(bundle, entry, wish):
            words = f"{built.folder.name}: {', '.join(why)}"
            misfits.append(_Misfit(words, record.rebuild(entry.backend, entry.precision), False))
        else:
            fitting.append((built, entry))
    return fitting, misfits


def _choices(fitting: Sequence[Fitting], wish: _Wish) -> list[Choice]:
    backends = available() if wish.backend == "auto" else [wish.backend]
    return choices(fitting, wish.precision == "auto", backends)


def _unsigned(bundle: Bundle, built: Built, entry: Record) -> bool:
    """Tell whether an engine is not its owner's, where only engines that he signed are run."""
    if bundle.owner is None or not trust.engines_too():
        return False
    home = f"{record.FOLDER}/{built.folder.name}"
    return not {f"{home}/{record.RECORD}", f"{home}/{entry.file}"} <= bundle.signed


def _why_not(bundle: Bundle, entry: Record, wish: _Wish) -> list[str]:
    if entry.backend not in BACKENDS:
        return [f"made by {entry.backend}, a backend that is not known here"]
    try:
        version = engine_type(entry.backend).version() if installed(entry.backend) else None
    except EngineError as error:
        return [str(error)]
    why = mismatches(entry, bundle, version, machine.cpu(), machine.gpus())
    if entry.failed and wish.precision == "auto":
        why.append("it failed parity")
    return why


def _none_fits(misfits: Sequence[_Misfit]) -> str:
    words = "; ".join(misfit.words for misfit in misfits)
    return (
        f"no engine that was built fits this machine: {words}; {misfits[0].remedy}, or run the "
        "plain graph with: --fallback"
    )


def _told(engine: Engine, refused: Sequence[str], notify: Notify) -> Engine:
    if refused:
        notify(f"{'; '.join(refused)}; running {engine.describe()} instead")
    return engine


def _open_choice(bundle: Bundle, choice: Choice, threads: int | None) -> GraphEngine:
    if choice.fitting is None:
        return _direct(bundle, choice.backend, choice.precision, threads, [])
    return _load_built(bundle, *choice.fitting, threads)


def _load_built(bundle: Bundle, built: Built, entry: Record, threads: int | None) -> GraphEngine:
    path = record.verify(built.folder, entry)
    kind = engine_type(entry.backend)
    if entry.precision not in kind.graphs or path.name != kind.file_name:
        raise EngineError(
            f"{built.folder}: {record.RECORD} describes no engine of {entry.backend}; "
            "remove the folder"
        )
    return load(bundle, kind, EngineSource(path, entry.precision, True, threads, entry.batches))


def load(bundle: Bundle, kind: type[GraphEngine], source: EngineSource) -> GraphEngine:
    """Start an engine. Raises MissingDependency, or EngineError whatever the backend raises.

    Refuses a precision whose numbers would not be the graph's on this machine.
    """
    try:
        kind.check_arithmetic(source.precision)
        return kind(bundle.manifest, source)
    except (EngineError, MissingDependency):
        raise
    except Exception as error:  # each backend has errors of its own, all meaning "cannot load"
        raise EngineError(
            f"{kind.backend} cannot load {source.path}: {one_line(error)}; see: fgdeploy doctor"
        ) from error


def accepted(engine: GraphEngine, accept: Accept) -> GraphEngine:
    """Return an engine that is accepted; one that is refused is closed, and what refused it raised.

    Not later than in a second, closed or not.
    """
    try:
        accept(engine)
    except BaseException:
        # Closing waits for what runs, and an engine may be refused because that never ends.
        closer = threading.Thread(target=engine.close, name="close engine", daemon=True)
        closer.start()
        closer.join(_CLOSES_IN_S)
        raise
    return engine


def graph_key(bundle: Bundle, kind: type[GraphEngine], precision: str) -> str | None:
    """Return the key of the graph that serves a precision best, None if the bundle has none.

    Raises UsageError for a precision that the backend has not.
    """
    if precision not in kind.graphs:
        raise UsageError(
            f"{kind.backend} has no precision {precision!r}; choose {', '.join(kind.graphs)}"
        )
    files = bundle.manifest.files
    return next((key for key in kind.graphs[precision] if GRAPHS.get(key) in files), None)


def _open_graph(
    bundle: Bundle,
    wish: _Wish,
    threads: int | None,
    refused: list[str],
    fallback: bool,
    accept: Accept,
) -> GraphEngine:
    """Open a graph in the backend asked for; with `fallback` in any CPU backend instead."""
    precision = "fp32" if wish.precision == "auto" else wish.precision
    names = [] if wish.backend == "auto" else [wish.backend]
    if fallback or not names:
        names += _portable(precision)[: None if fallback else 1]
    *others, last = dict.fromkeys(names)
    for name in others:
        try:
            return accepted(_direct(bundle, name, precision, threads, refused), accept)
        except FgdeployError as error:
            refused.append(str(error))
    try:
        return accepted(_direct(bundle, last, precision, threads, refused), accept)
    except EngineError as error:
        if not others:
            raise
        raise EngineError("; ".join(dict.fromkeys([*refused, str(error)]))) from error


def _direct(
    bundle: Bundle, backend: str, precision: str, threads: int | None, refused: list[str]
) -> GraphEngine:
    kind = engine_type(backend)
    key = graph_key(bundle, kind, precision)
    if not kind.portable:
        why = "; ".join(refused) or "none was built"
        build = record.rebuild(backend, precision).replace("rebuild", "build", 1)
        raise EngineError(
            f"{bundle.path.name} holds no {backend} {precision} engine for this machine: {why}; "
            f"{build}"
        )
    path = bundle.graph(key or precision)
    return load(bundle, kind, EngineSource(path, precision, threads=threads))


def _portable(precision: str) -> list[str]:
    """Return the CPU backends that are installed and have a precision, at least one name."""
    names = [name for name in available() if not BACKENDS[name].gpu]
    fit = [name for name in names if precision in engine_type(name).graphs]
    return fit or names[:1] or ["onnxruntime"]
