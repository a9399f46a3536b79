"""A Triton model repository of a bundle: `NAME/config.pbtxt`, `NAME/1/model.onnx`, `NAME/warmup/`.

A model's folder is written beside its place and takes it by one rename, other versions and all.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy.bundle import Bundle
from fgdeploy.core import atomic
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.core.text import shown
from fgdeploy.triton import model_config, model_tensors, served_file, warm_up
from fgdeploy.triton.model_config import ServedModel
from fgdeploy.triton.serving_settings import ServingSettings, is_model_name

_LARGEST_CONFIG = 1 << 20  # bytes
_OURS = (model_config.FILE, model_config.LABELS, warm_up.FOLDER)


@dataclass(frozen=True)
class WrittenModel:
    """What was written: the model's folder, its name and version, files by size, and needs."""

    path: Path
    name: str
    version: int
    backend: str
    graph: str
    max_batch: int
    preferred: tuple[int, ...]
    files: dict[str, int]
    needs: tuple[str, ...]


def write(
    bundle: Bundle, repository: Path, settings: ServingSettings, overwrite: bool = False
) -> WrittenModel:
    """Write a bundle into a repository, which is made if it is not there.

    overwrite: replace this version of a model of that name; other versions stay. Raises UsageError,
    BundleError, EngineError, DataError, MissingDependency or OSError, and then changes nothing.
    """
    model_config.message_type()  # which may be missing, said before anything is read
    model = _model(bundle, settings)
    target = repository / model.name
    others = _others(target, model, overwrite)
    config = model_config.make(model)
    for key, value in others.items():
        config.parameters[key].string_value = value
    with _made(repository), atomic.new_folder(target, replace=True) as folder:
        _fill(folder, model)
        for version in _versions(target) - {settings.version}:
            shutil.copytree(target / str(version), folder / str(version), symlinks=True)
        sizes = {path.name: path.stat().st_size for path in (folder / warm_up.FOLDER).iterdir()}
        model_config.check(config, model, sizes)
        text = model_config.to_text(config, model.file.needs)
        (folder / model_config.FILE).write_text(text, encoding="utf-8")
        # What was written, not what was meant
        model_config.check(model_config.from_text(text), model, sizes)
    files = {
        path.relative_to(target).as_posix(): path.stat().st_size
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }
    return WrittenModel(
        target,
        model.name,
        settings.version,
        settings.backend,
        model.file.graph,
        model.max_batch,
        tuple(model.preferred),
        files,
        model.file.needs,
    )


def _model(bundle: Bundle, settings: ServingSettings) -> ServedModel:
    name = bundle.path.resolve().stem if settings.name is None else settings.name
    if not is_model_name(name):
        raise UsageError(f"{shown(name)} is no name for a model of Triton; give one with --name")
    file = served_file.choose(bundle, settings)
    frames, outputs = model_tensors.of_graph(bundle.graph(file.graph), bundle.manifest)
    most = model_config.largest_batch(file.batches, settings.max_batch, file.record is not None)
    sizes = [1, *model_config.preferred_batches(file.batches, most)]
    runs = warm_up.warm_ups(bundle, sizes)
    return ServedModel(name, settings, file, bundle.manifest, frames, outputs, runs, most)


def _fill(folder: Path, model: ServedModel) -> None:
    """Write all but the configuration and the other versions."""
    version = folder / str(model.settings.version)
    version.mkdir()
    shutil.copyfile(model.file.path, version / model.file.name)
    (folder / warm_up.FOLDER).mkdir()
    for run in model.warm_ups:
        (folder / warm_up.FOLDER / run.file).write_bytes(run.content)
    if classes := model.manifest.classes:
        if any(not name.isprintable() for name in classes):
            raise DataError(
                "a class name has a line break or the like, which no list of labels has"
            )
        text = "".join(f"{name}\n" for name in classes)
        (folder / model_config.LABELS).write_text(text, encoding="utf-8")


def _versions(target: Path) -> set[int]:
    """Return the versions that lie in a model's folder."""
    if not target.is_dir():
        return set()
    names = [path.name for path in target.iterdir() if path.is_dir()]
    return {int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0"}


def _others(target: Path, model: ServedModel, overwrite: bool) -> dict[str, str]:
    """Return the fingerprints of a model's other versions, as parameters.

    Raises DataError where something else stands there, or a version that takes or gives other
    tensors: one configuration is for all versions.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise DataError(f"{target} is no folder of a model; give another -o or --name")
    if not target.exists():
        return {}
    versions, own = _versions(target), model.settings.version
    odd = {path.name for path in target.iterdir()} - {*_OURS, *map(str, versions)}
    held = _held(target)
    if odd or held is None:
        what = f"holds {shown(min(odd))}" if odd else f"has no {model_config.FILE}"
        raise DataError(f"{target} {what}, so fgdeploy did not write it; give another --name")
    if own in versions and not overwrite:
        raise DataError(
            f"{target} has version {own} already; pass --overwrite, another --version, or --name"
        )
    others = versions - {own}
    fresh = model_config.make(model)
    same = ("backend", "input", "output", "default_model_filename")
    if others and any(getattr(held, name) != getattr(fresh, name) for name in same):
        raise DataError(
            f"{target} has versions of another backend or of other tensors, and all versions share "
            "one configuration; give another --name"
        )
    keys = [f"{model_config.FINGERPRINT}.{version}" for version in sorted(others)]
    return {key: held.parameters[key].string_value for key in keys if key in held.parameters}


def _held(target: Path) -> Any | None:
    path = target / model_config.FILE
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_CONFIG:
        return None
    return model_config.from_text(path.read_bytes().decode("utf-8", "replace"))


@contextlib.contextmanager
def _made(repository: Path) -> Iterator[None]:
    """Make the repository's folder where it is not there; it does not outlast a failure."""
    made = not repository.exists()
    if made and not repository.parent.is_dir():
        raise DataError(f"no folder {repository.parent} to write {repository.name} into")
    if not made and not repository.is_dir():
        raise DataError(f"{repository} is not a folder; give another -o")
    repository.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # only where it is empty
                repository.rmdir()
        raise
