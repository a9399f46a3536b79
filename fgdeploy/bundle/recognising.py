"""What a path is that is no bundle, and what to do with it: for the message that says so."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fgdeploy.photos.formats import SUFFIXES

_LOOKED_AT = 200  # entries of a folder

# The files that tell a folder, in the order of asking; the words that follow its name.
_FOLDERS: dict[str, str] = {
    "index.sqlite": "is an index, not a bundle; see it with: fgdeploy index stats {path}",
    "engine.json": "is a compiled engine; give the bundle that it lies in: {bundle}",
    "state.pt": (
        "is a training that is not finished; go on with it: fgdeploy train ... -o {path} --resume"
    ),
    "model.safetensors": (
        "is a training, not a bundle; make one of it with: fgdeploy export {path}"
    ),
}
_WEIGHTS = "is a file of weights, not a bundle; make one of it with: fgdeploy export {path}"
_LIST = "is a list of photos, not a bundle; see what is in it with: fgdeploy hash {path}"
_FILES: dict[str, str] = {
    ".fgdz": "is a packed bundle; unpack it first: fgdeploy unpack {path}",
    ".onnx": "is a graph alone; give the bundle (a folder *.fgd) that it lies in",
    ".npz": "is a file of codes, not a bundle; add them to an index with: fgdeploy index import",
    **dict.fromkeys((".safetensors", ".pth", ".pt", ".bin"), _WEIGHTS),
    **dict.fromkeys((".csv", ".tsv"), _LIST),
    **dict.fromkeys(SUFFIXES, "is a photo, not a bundle; hash it with: fgdeploy hash {path}"),
}


def what_it_is(path: Path) -> str | None:
    """Return what a file or folder is and what to do next, None where nothing tells.

    Looks at names alone, and a few hundred of them at most.
    """
    try:
        words = _folder(path) if path.is_dir() else _file(path)
    except OSError:
        return None
    return words and f"{path} {words.format(path=path, bundle=path.parent.parent)}"


def _file(path: Path) -> str | None:
    if not path.is_file():  # a pipe or device would never end
        return None
    suffix = path.suffix.lower()
    renamed = suffix in ("", ".fgd", ".zip") and zipfile.is_zipfile(path)
    return _FILES.get(".fgdz" if renamed else suffix)


def _folder(path: Path) -> str | None:
    for name, words in _FOLDERS.items():
        if (path / name).is_file():
            return words
    return next(filter(None, (look(path) for look in _LOOKS)), None)


def _bundles(path: Path) -> str | None:
    found = [one for one in _some(path) if (one / "manifest.json").is_file()]
    if not found:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"is a folder with the bundle {_braces(found[0].name)}{more} in it; name the bundle"


def _photos(path: Path) -> str | None:
    inside = itertools.chain(_some(path), *map(_some, _some(path)))
    if not any(entry.suffix.lower() in SUFFIXES for entry in itertools.islice(inside, _LOOKED_AT)):
        return None
    return "is a folder of photos, not a bundle; hash them with: fgdeploy hash {path}"


_LOOKS: tuple[Callable[[Path], str | None], ...] = (_bundles, _photos)


def _some(path: Path) -> Iterator[Path]:
    """Return a few entries of a folder, none of what is none."""
    return itertools.islice(path.iterdir(), _LOOKED_AT) if path.is_dir() else iter(())


def _braces(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")
