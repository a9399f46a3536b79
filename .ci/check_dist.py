"""Check what a built wheel and sdist hold: the package, all of it, and nothing else."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "training", "export", "calibration", "engines")


def expected_modules() -> set[str]:
    """Return the wheel's Python files as the source tree has them."""
    inside = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fgdeploy").rglob("*.py")
        if not any(part.is_symlink() for part in path.parents)
    }
    rooms = {
        f"fgdeploy/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    return inside | rooms


def expected_data() -> set[str]:
    """Return the files beside the modules that the package needs."""
    page = (ROOT / "fgdeploy" / "serve" / "page").iterdir()
    return {
        "fgdeploy/py.typed",
        "fgdeploy/demo/backbone.safetensors",
        *(path.relative_to(ROOT).as_posix() for path in page),
    }


def check_wheel(path: Path) -> list[str]:
    """Return what is wrong with the wheel."""
    names = {name for name in zipfile.ZipFile(path).namelist() if not name.endswith("/")}
    tops = {name.partition("/")[0] for name in names}
    problems = [
        f"wheel holds {top}" for top in tops if top != "fgdeploy" and ".dist-info" not in top
    ]
    modules = {name for name in names if name.endswith(".py")}
    problems += [f"wheel lacks {name}" for name in sorted(expected_modules() - modules)]
    problems += [f"wheel has stray {name}" for name in sorted(modules - expected_modules())]
    problems += [f"wheel lacks {name}" for name in sorted(expected_data() - names)]
    if not any(name.endswith("licenses/LICENSE") for name in names):
        problems.append("wheel lacks the licence")
    return problems


def check_sdist(path: Path) -> list[str]:
    """Return what is wrong with the sdist."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "fgdeploy/py.typed", "fgdeploy/cli/app.py"}
    wanted |= expected_data()
    wanted |= {
        path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")
    }
    return [f"sdist lacks {name}" for name in sorted(wanted - names)]


def main() -> int:
    """Check the only wheel and sdist in the folder given."""
    folder = Path(sys.argv[1])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    problems = check_wheel(wheel) + check_sdist(sdist)
    print("\n".join(problems) or f"{wheel.name} and {sdist.name} hold what they should")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
