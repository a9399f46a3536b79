"""A bundle from a hub: the files that its manifest lists and no others, each held against it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fgdeploy.bundle import ENGINES, MANIFEST, Bundle, Manifest, open_bundle
from fgdeploy.bundle.folder import LONGEST_MANIFEST, check_files, check_new, read_manifest
from fgdeploy.bundle.pack_reading import check_names
from fgdeploy.bundle.signature import LARGEST, SIGNATURE
from fgdeploy.core import atomic
from fgdeploy.core.errors import BundleError, RemoteError
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.hub.hub_address import HubAddress
from fgdeploy.hub.hub_cache import CachedRepository
from fgdeploy.hub.hub_client import TIMEOUT_S, NoNetworkError, asking, client, offline

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MOST_FILES = 10_000  # of a repository


def opened(
    address: str | os.PathLike[str],
    verify: str | os.PathLike[str] | None = None,
    notify: Notify = silent,
    progress: Progress = no_progress,
) -> Bundle:
    """Return the bundle of a hub's address, from the cache or fetched into it, and verified.

    A name that may move is asked for each time; without network the commit that it last was is
    taken, and `notify` is told. A commit that is here is not asked for. A cached file that is
    damaged is fetched again. verify: as for `open_bundle`. Raises RemoteError, BundleError,
    UsageError, MissingDependency.
    """
    where = HubAddress.parse(address)
    cached = CachedRepository(where)
    commit, reached = _resolve(where, cached, notify)
    folder = cached.bundle(commit)
    if os.path.lexists(folder):
        try:
            bundle = open_bundle(folder, verify)
            if reached:
                cached.remember(commit)
            return bundle
        except BundleError as error:
            if _is_whole(folder):
                raise  # whole, and not what is demanded: another key's
            if offline():
                raise RemoteError(
                    f"{where}: {error}; it cannot be fetched again while HF_HUB_OFFLINE is set"
                ) from None
            notify(f"{where}: what is cached is damaged ({error}); fetching it again")
            cached.drop(folder)
    with cached.alone(commit):
        if not folder.is_dir():
            _fetch(where, commit, cached, progress)
    if reached:
        cached.remember(commit)
    return open_bundle(folder, verify)


def pull(
    address: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    verify: str | os.PathLike[str] | None = None,
    notify: Notify = silent,
    progress: Progress = no_progress,
) -> Bundle:
    """Fetch a bundle into the cache, and copy it to `target` if one is given.

    Raises as `opened`, and BundleError or UsageError for a target that cannot be; then nothing is
    left there.
    """
    if target is not None:
        check_new(Path(target), overwrite)
    bundle = opened(address, verify, notify, progress)
    if target is None:
        return bundle
    with atomic.new_folder(Path(target), replace=overwrite) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        open_bundle(folder, verify)
    return open_bundle(target, verify)


def _resolve(where: HubAddress, cached: CachedRepository, notify: Notify) -> tuple[str, bool]:
    """Return the commit that an address is, and whether the hub said so just now."""
    if where.commit is not None and cached.bundle(where.commit).is_dir():
        return where.commit, False
    try:
        if offline():
            raise NoNetworkError(f"{where} is not in the cache, and HF_HUB_OFFLINE is set")
        api = client()
        with asking(where):
            info = api.model_info(where.repository, revision=where.revision, timeout=TIMEOUT_S)
        commit = HubAddress(where.repository, info.sha).commit
        if commit is None:
            raise RemoteError(f"{where}: the hub names no commit; is HF_ENDPOINT a hub's address?")
        return commit, True
    except NoNetworkError as error:
        known = cached.remembered()
        if known is None:
            raise RemoteError(
                f"{error}; fetch it once where there is network: fgdeploy pull {where}"
            ) from None
        if not offline():
            notify(f"{error}; going on with commit {known[:12]} of the cache")
        return known, False


def _is_whole(folder: Path) -> bool:
    try:
        check_files(folder, read_manifest(folder / MANIFEST))
    except BundleError:
        return False
    return not folder.is_symlink()


def _fetch(where: HubAddress, commit: str, cached: CachedRepository, progress: Progress) -> None:
    """Fetch a commit's bundle beside its place, and move it there once it is verified."""
    part, api = cached.part(commit), client()
    with cached.writing():
        part.mkdir(exist_ok=True)
    sizes = _sizes(api, where, commit)
    _get(api, where, commit, part, MANIFEST)
    try:
        manifest = read_manifest(part / MANIFEST)
        check_names(manifest.files, str(where))
        wanted = _wanted(where, manifest, sizes)
        _check_room(where, part, sum(wanted.values()))
        done = 0
        for name, size in wanted.items():
            _get(api, where, commit, part, name)
            done += size
            progress(done, sum(wanted.values()))
        check_files(part, manifest)
    except BundleError as error:
        cached.drop(part)
        raise RemoteError(
            f"{where}: {_spoken(error, part, where)}; nothing of it was kept"
        ) from None
    with cached.writing():
        shutil.rmtree(part / ".cache", ignore_errors=True)
        os.rename(part, cached.bundle(commit))


def _spoken(error: BundleError, part: Path, where: HubAddress) -> str:
    return str(error).replace(f"{part}{os.sep}", "").replace(str(part), str(where))


def _sizes(api: HfApi, where: HubAddress, commit: str) -> Mapping[str, int]:
    """Return name -> bytes of all files of a commit. Raises RemoteError."""
    from huggingface_hub.hf_api import RepoFile

    sizes: dict[str, int] = {}
    with asking(where):
        tree = api.list_repo_tree(where.repository, recursive=True, revision=commit)
        for count, entry in enumerate(tree):
            if count == _MOST_FILES:
                raise RemoteError(f"{where} holds over {_MOST_FILES:,} files, so it is no bundle")
            if isinstance(entry, RepoFile):
                sizes[entry.path] = entry.size
    size = sizes.get(MANIFEST)
    if size is None:
        raise RemoteError(f"{where} holds no {MANIFEST}, so it is no bundle; check the name")
    if size > LONGEST_MANIFEST:
        raise RemoteError(
            f"{where}: expected a {MANIFEST} of at most {LONGEST_MANIFEST} bytes, got {size}"
        )
    return sizes


def _wanted(where: HubAddress, manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return name -> bytes of what is fetched: what the manifest lists, and a signature."""
    for name, facts in manifest.files.items():
        if sizes.get(name) != facts["bytes"]:
            got = sizes.get(name, "no such file")
            raise BundleError(
                f"the {MANIFEST} lists {name} with {facts['bytes']} bytes, the hub has {got}; push "
                "the bundle again"
            )
    wanted = {name: facts["bytes"] for name, facts in manifest.files.items()}
    if 0 < sizes.get(SIGNATURE, 0) <= LARGEST:
        wanted[SIGNATURE] = sizes[SIGNATURE]
    if any(name.split("/")[0] in (ENGINES, ".cache") for name in wanted):
        raise BundleError(f"the {MANIFEST} lists engines, or files of the hub's client")
    return wanted


def _check_room(where: HubAddress, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part).free
    if needed > free:
        raise RemoteError(
            f"{where} needs {needed / 1e6:,.1f} MB, {part.parent} has {free / 1e6:,.1f} MB free; "
            "free some space, or name another cache in FGDEPLOY_HUB_CACHE"
        )


def _get(api: HfApi, where: HubAddress, commit: str, part: Path, name: str) -> None:
    """Fetch one file of a commit into a folder; what is there already is not fetched again."""
    with asking(where):
        api.hf_hub_download(where.repository, name, revision=commit, local_dir=part)
