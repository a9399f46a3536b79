"""A bundle to a hub, as one commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fgdeploy.bundle import MANIFEST, Bundle, card, open_bundle, sha256
from fgdeploy.bundle.signature import SIGNATURE, check_carried
from fgdeploy.core.errors import RemoteError, UsageError
from fgdeploy.hub.hub_address import HubAddress
from fgdeploy.hub.hub_client import asking, client, offline

if TYPE_CHECKING:
    from huggingface_hub import HfApi

README = "README.md"
_MARK = "<!-- written by fgdeploy push, which replaces it; take this line away to keep changes -->"


@dataclass(frozen=True)
class Published:
    """A bundle on a hub: its address with the commit, and name -> bytes of what lies there."""

    address: str
    commit: str
    files: Mapping[str, int]


def push(
    bundle_path: str | os.PathLike[str],
    address: str | os.PathLike[str],
    public: bool = False,
) -> Published:
    """Verify a bundle and write it into a repository's main branch, as one commit.

    A repository that is not there is made, private unless `public`. What lay there of a bundle and
    is not in this one is removed. Files that the hub has already are not sent again, so a push that
    broke off goes on. Raises BundleError, UsageError, RemoteError, MissingDependency.
    """
    where = HubAddress.parse(address)
    if where.revision is not None:
        raise UsageError(f"{where}: a push goes to the main branch; leave out @{where.revision}")
    bundle = open_bundle(bundle_path)
    names = [MANIFEST, *sorted(bundle.manifest.files)]  # engines are a machine's own
    if os.path.lexists(bundle.path / SIGNATURE):
        check_carried(bundle.path / SIGNATURE, set(names), sha256(bundle.path / MANIFEST))
        names.append(SIGNATURE)
    if README in names:
        raise UsageError(f"{bundle.path} lists a {README}, whose place the hub's page takes")
    if offline():
        raise RemoteError(f"{where} cannot be pushed to while HF_HUB_OFFLINE is set")
    return _committed(bundle, where, names, public)


def _committed(bundle: Bundle, where: HubAddress, names: list[str], public: bool) -> Published:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = client()
    with asking(where):
        api.create_repo(where.repository, private=not public, exist_ok=True)
        there = set(api.list_repo_files(where.repository))
        ours = README not in there or _is_ours(api, where)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, os.fspath(bundle.path / name)) for name in names
        ]
        if ours:
            operations.append(CommitOperationAdd(README, readme(bundle, where).encode()))
        operations += [CommitOperationDelete(name) for name in sorted(_left(there, names))]
        words = f"{bundle.manifest.method}, {bundle.manifest.bits} bits ({_short(bundle)})"
        done = api.create_commit(where.repository, operations, commit_message=words)
    commit = HubAddress(where.repository, done.oid).commit
    if commit is None:
        raise RemoteError(f"{where}: the hub names no commit; is HF_ENDPOINT a hub's address?")
    files = {name: (bundle.path / name).stat().st_size for name in names}
    return Published(f"hf://{where.repository}@{commit}", commit, files)


def _is_ours(api: HfApi, where: HubAddress) -> bool:
    """Tell whether the page on the hub is one that a push wrote."""
    with tempfile.TemporaryDirectory(prefix="fgdeploy-") as private:
        found = api.hf_hub_download(where.repository, README, local_dir=private)
        return _MARK in Path(found).read_text(encoding="utf-8", errors="replace")


def _left(there: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return what an earlier bundle left, and nothing that people or the hub put there."""
    kept = {README, ".gitattributes", "LICENSE", "LICENSE.md", "LICENSE.txt"}
    return {name for name in set(there) - set(names) - kept if not name.startswith(".")}


def _short(bundle: Bundle) -> str:
    return bundle.manifest.fingerprint[:12]


def readme(bundle: Bundle, where: HubAddress) -> str:
    """Return the hub's page of a bundle: its card in short, with how to use it."""
    manifest, stated = bundle.manifest, card.read(bundle).model
    licence = {"license": stated.license.lower()} if stated.license else {}
    head = {**licence, "library_name": "fgdeploy", "pipeline_tag": "image-feature-extraction"}
    rows = {
        "method": manifest.method,
        "backbone": manifest.backbone,
        "input": f"{manifest.image_size} px",
        "code": f"{manifest.bits} bits",
        "fingerprint": f"`{manifest.fingerprint}`",
        "creator": stated.creator,
        "licence": stated.license,
        "made by": manifest.created_by,
    }
    title = stated.name or f"{manifest.method} on {manifest.backbone}, {manifest.bits} bits"
    return "\n".join(
        [
            "---",
            *(f"{name}: {_plain(value, quoted=True)}" for name, value in head.items()),
            "---",
            _MARK,
            "",
            f"# {_plain(title)}",
            "",
            *([_plain(stated.description), ""] if stated.description else []),
            "| | |",
            "|---|---|",
            *(f"| {name} | {_plain(value)} |" for name, value in rows.items() if value),
            "",
            "A bundle of fgdeploy: images to hash codes, for retrieval.",
            "",
            f'    hasher = fgdeploy.load("{where}")',
            "",
        ]
    )


def _plain(text: str, quoted: bool = False) -> str:
    """Return a text that can be no markup, or, quoted, as a value of YAML."""
    line = " ".join(text.split())
    if quoted:
        return '"' + line.replace("\\", "").replace('"', "") + '"'
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;")):
        line = line.replace(letter, entity)
    return line
