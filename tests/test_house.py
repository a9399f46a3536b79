"""The house itself: rooms, links, arrows, names."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from pathlib import Path

import pytest
import tomllib

import fgdeploy

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "training", "export", "calibration", "engines")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_declared_packages_are_those_on_disk() -> None:
    declared = set(PROJECT["tool"]["setuptools"]["packages"])
    inside = {
        ".".join(("fgdeploy", *init.parent.relative_to(ROOT / "fgdeploy").parts))
        for init in (ROOT / "fgdeploy").rglob("__init__.py")
        if not init.parent.is_symlink()
    }
    rooms = {
        ".".join(("fgdeploy", *init.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert declared == inside | rooms
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    assert {f"fgdeploy.{room}": room for room in ROOMS}.items() <= mapped.items()


@pytest.mark.parametrize("room", ROOMS)
def test_links_lead_to_the_rooms(room: str) -> None:
    link = ROOT / "fgdeploy" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room


# Every room may use what it stands on; beside that and itself, these.
_COMMON = {"core", "photos", "bundle"}
_ARROWS = {
    "models": set(),
    # Training and export evaluate what they made.
    "training": {"models", "evaluation"},
    # Export proves its own graph, so it runs one: the only step ahead in the line.
    "export": {"models", "training", "engines", "evaluation", "proof.parity"},
    # Calibration measures what it made, as export does.
    "calibration": {"engines", "proof.parity", "proof.limits", "proof.variety"},
    "engines": set(),
    # Within the application: cli -> everything else -> bundle -> photos -> core.
    "core": set(),
    "photos": {"core"},
    "bundle": {"core", "photos"},
    "retrieval": {"core"},
    "evaluation": {"core", "bundle", "photos", "hasher"},
}
_INSIDE = ("core", "photos", "bundle", "retrieval", "evaluation")


def _modules_imported(path: Path) -> set[str]:
    """Return what is imported of fgdeploy, as `bundle.folder`, without the leading `fgdeploy.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "fgdeploy":
                names = [f"fgdeploy.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.removeprefix("fgdeploy.") for name in names if name.startswith("fgdeploy.")}
    return found


def _allowed(name: str, arrows: set[str]) -> bool:
    return any(name == arrow or name.startswith(f"{arrow}.") for arrow in arrows)


@pytest.mark.parametrize("room", [*ROOMS, *_INSIDE])
def test_imports_follow_the_arrows(room: str) -> None:
    common = _COMMON if room in ROOMS else set()
    arrows = _ARROWS[room] | common | {room, "__version__"}
    folder = ROOT / room if room in ROOMS else ROOT / "fgdeploy" / room
    for path in folder.rglob("*.py"):
        foreign = {name for name in _modules_imported(path) if not _allowed(name, arrows)}
        assert not foreign, path


def test_the_scan_knows_nothing_of_the_store() -> None:
    for path in (ROOT / "fgdeploy" / "retrieval" / "scan").rglob("*.py"):
        names = {name for name in _modules_imported(path) if name.startswith("retrieval")}
        assert all(name.startswith("retrieval.scan") for name in names), path


# What of a tuning makes and runs networks; the numbers beside do without.
_TUNING = ("planning", "stack_graph", "stack_timing", "trials", "tuner", "workshop")
_TUNING += ("advice", "schedules")  # stages, which are numbers


def test_only_the_demo_parity_explanations_and_tuning_reach_back_to_torch() -> None:
    back = {"models", "training", "export"}
    for path in (ROOT / "fgdeploy").rglob("*.py"):
        inside = path.relative_to(ROOT / "fgdeploy")
        if inside.parts[0] in (*ROOMS, "cli"):
            continue
        if any(_allowed(name, back) for name in _modules_imported(path)):
            known = ("demo/tour.py", "proof/comparing.py", "explaining/by_pytorch.py")
            known += tuple(f"tuning/{name}.py" for name in _TUNING)
            assert inside.as_posix() in known, path
        imports_cli = any(_allowed(name, {"cli"}) for name in _modules_imported(path))
        assert not imports_cli or inside.name == "__main__.py", path


def test_no_two_modules_and_no_two_types_have_one_name() -> None:
    """A command's file is called like the command, what a room's things share is its `base`, and
    `errors` has its public address; all other names are used once."""
    modules: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for folder in ("fgdeploy", *ROOMS):
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT).parts
            if any((ROOT / "fgdeploy" / part).is_symlink() for part in inside[1:2]):
                continue
            if path.stem != "__init__" and inside[1] != "cli":
                modules[path.stem] += 1
            tree = ast.parse(path.read_text(encoding="utf-8"))
            types.update(
                node.name
                for node in tree.body
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
            )
    assert {name for name, times in modules.items() if times > 1} <= {"errors", "base"}
    assert {name for name, times in types.items() if times > 1} == set()


def _reductions() -> set[str]:
    """Return the modules in `reduce` that declare a reduction: they know nothing of each other."""
    folder = ROOT / "models" / "reduce"
    found = [path for path in folder.glob("*.py") if "\nREDUCTION = " in path.read_text("utf-8")]
    return {f"reduce.{path.stem}" for path in found}


# Within the models: backbone -> tokens -> walk -> encoder -> network -> methods -> assembly.
_ORDER = (
    {"backbone.plain", "simplify", "weights.dinov2_keys"}
    | {"weights.vit_pytorch_keys", "weights.substitute"},
    {"backbone.rotary"},
    {"backbone.variant", "backbone.eva_blocks"},
    {"backbone.vit", "backbone.blocks", "reduce.stages", "weights.state_dicts"}
    | {"weights.arguments", "weights.told", "weights.name_patterns", "heads.class_head"},
    {"origins"},
    {"backbone.hub", "tokens", "weights.checkpoint", "options", "reduce.rates", "reduce.order"},
    {"reduce.layers", "reduce.means"},
    {"looks.crop", "looks.component"},
    {"backbone.embedding", "walk", "weights.source", "heads.base", "heads.aggregate"}
    | {"backbone.in_context"},
    {"heads.hash", "heads.projection", "reduce.scores", "encoder", "reduce.reduction"}
    | {"looks.similarity", "looks.rectangle", "looks.aggregator", "looks.adapter"},
    {"looks.sacm", "looks.local_branch"},
    {"looks.two_branches"},
    {"reduce.keep", "network", "reduce.cross_layer", "reduce.mixing", "reduce.policy"},
    {"methods.base", "plan", "tracing", "embedder"},
    _reductions(),
    {"reduce.reductions"},
    {"methods.clca_keys", "methods.clca_files", "methods.glsim_options", "methods.glsim_keys"}
    | {"methods.dva_files"},
    {"methods.eet", "methods.reduced", "methods.aftrans", "methods.glsim_files"},
    {"methods.clca", "methods.glsim", "methods.dva"},
    {"methods.registry"},
    {"weights.trained"},
    {"trained_options"},
    {"assembly"},
)


def test_models_build_on_each_other_in_one_direction() -> None:
    level = {name: number for number, names in enumerate(_ORDER) for name in names}
    inside = {
        ".".join(path.relative_to(ROOT / "models").with_suffix("").parts): path
        for path in (ROOT / "models").rglob("*.py")
        if path.stem != "__init__"
    }
    assert set(inside) == set(level)
    for name, path in inside.items():
        for other in _modules_imported(path):
            for target in level:
                if other == f"models.{target}" or other.startswith(f"models.{target}."):
                    assert level[target] < level[name], f"{name} imports {target}"


def test_only_a_methods_own_file_knows_its_name() -> None:
    from fgdeploy.models.methods.registry import METHODS

    allowed = {"bundle/schema_one.py"}  # manifests from before methods had options
    for folder in ("fgdeploy", *ROOMS):
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT / folder).as_posix()
            if inside in allowed or inside.startswith("methods/") or "/methods/" in inside:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            own = {path.stem} if path.parent.name == "reduce" else set()
            assert not texts & set(METHODS) - own, path
            homes = {f"models.methods.{name}" for name in METHODS}
            assert not _modules_imported(path) & homes, path


def test_public_names_resolve() -> None:
    for name in fgdeploy.__all__:
        assert getattr(fgdeploy, name) is not None
    assert PROJECT["project"]["version"] == fgdeploy.__version__
    assert dir(fgdeploy) == sorted(fgdeploy.__all__)
    assert callable(fgdeploy.retrieval.search_codes)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fgdeploy.nothing


def test_extras_are_those_that_errors_name() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert extras == {
        "cpu",
        "gpu",
        "tensorrt",
        "tensorrt-rtx",
        "heif",
        "search",
        "search-gpu",
        "camera",
        "serve",
        "milvus",
        "postgres",
        "ray",
        "triton",
        "sign",
        "hub",
        "report",
        "calibrate",
        "export",
        "train",
        "detect",
        "dev",
        "servers",
    }
    from fgdeploy.doctor import _PACKAGES
    from fgdeploy.engines import BACKENDS

    assert {extra for extra, _ in _PACKAGES.values()} <= extras
    assert {backend.extra for backend in BACKENDS.values()} <= extras


def test_no_file_grows_beyond_its_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("fgdeploy", *ROOMS, "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}


def test_tests_lie_as_the_source_lies() -> None:
    """`tests/ROOM/.../test_NAME.py` is of the module NAME, or of one that NAME begins with."""
    odd = set()
    for path in (ROOT / "tests").glob("*/**/test_*.py"):
        inside = path.relative_to(ROOT / "tests")
        modules = {module.stem for module in (ROOT / inside.parent).glob("*.py")}
        name = path.stem.removeprefix("test_")
        if not any(name == module or name.startswith(f"{module}_") for module in modules):
            odd.add(inside.as_posix())
    assert odd == set()


_SEVERAL = re.compile(
    r"^ (photos|items|codes|images|queries|files|rows|classes|layers|epochs|segments|copies"
    r"|engines|trainings|problems|transactions|answers|steps|entries|bundles|members)\b"
)
# What stands before such a word and is no number, or a number that is never one.
_NO_COUNT = re.compile(
    r"_split$|^side$|^[A-Z_]+$|identical_codes$|_rate$|^\(count, bits\)$|^len\(groups\)$"
    r"|^inner.shape\[0\]$"
)


def test_numbers_have_the_right_noun() -> None:
    """A message counts things with `core.text.counted`: 1 photo, 2 photos, never photo(s)."""
    wrong = []
    for folder in ("fgdeploy", *ROOMS):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            wrong += [f"{path}: {found}" for found in re.findall(r"[a-z]\(e?s\)[ ,.;:]", text)]
            for node in ast.walk(ast.parse(text)):
                parts = node.values if isinstance(node, ast.JoinedStr) else []
                for number, noun in itertools.pairwise(parts):
                    if not isinstance(number, ast.FormattedValue):
                        continue
                    said = getattr(noun, "value", "")
                    shown = ast.unparse(number.value)
                    if isinstance(said, str) and _SEVERAL.match(said):
                        wrong += [f"{path}: {shown}{said}"] * (not _NO_COUNT.search(shown))
    assert wrong == []


def test_only_one_module_prints() -> None:
    """Answers and messages go through `cli.show`, which knows --quiet, --csv and the terminal."""
    allowed = {"cli/show.py", "cli/app.py", "cli/log_lines.py", "cli/streams.py", "cli/bars.py"}
    allowed |= {"proof/own_process.py"}  # a process of its own, whose answer its parent reads
    for path in (ROOT / "fgdeploy").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.relative_to(ROOT / "fgdeploy").as_posix() not in allowed:
            assert not re.search(r"typer\.echo|\bprint\(|sys\.std(out|err)\.", text), path
