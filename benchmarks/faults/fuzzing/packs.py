"""Packs: their bytes damaged, or the zip written anew with other members than `pack` writes."""

from __future__ import annotations

import io
import random
import stat
import zipfile
from collections.abc import Callable

from fuzzing.manifests import signed
from fuzzing.mutations import damaged, edited
from fuzzing.running import Outcome
from fuzzing.using import manifest_of
from fuzzing.world import BUNDLE, OTHER, OTHER_PACK, PACK, Attempt, World, snapshot

Members = list[tuple[zipfile.ZipInfo, bytes]]
NEW = "new.fgd"


def attempt(chooser: random.Random, world: World) -> Attempt:
    """Change a pack, and unpack it."""
    whole, other = world.read(PACK), world.read(OTHER_PACK)
    if chooser.random() < 0.5:
        what, hurt = damaged(chooser, whole, other)
    else:
        what, hurt = _forged(chooser, whole, other)
    (world.room / "hurt.fgdz").write_bytes(hurt)
    return Attempt(
        f"pack: {what}", ("unpack", "hurt.fgdz", "-o", NEW), lambda outcome: _judge(world, outcome)
    )


def _judge(world: World, outcome: Outcome) -> str | None:
    """Return what differs between the unpacked bundle and the ones that were packed."""
    held = snapshot(world.room, (NEW,))
    own = (f"{NEW}/manifest.json", f"{NEW}/engines")  # no manifest lists itself, or engines
    listed = {name: what for name, what in held.items() if not name.startswith(own)}
    for right in (BUNDLE, OTHER):
        wanted = snapshot(world.room, (right,))
        whole = {name.replace(right, NEW, 1): what for name, what in wanted.items()}
        whole.pop(f"{NEW}/manifest.json")
        if whole == listed:
            ours, theirs = manifest_of(world.room / NEW), manifest_of(world.room / right)
            one = {key: ours["preprocess"].get(key) for key in theirs["preprocess"]}
            same = ours["fingerprint"] != theirs["fingerprint"] or one == theirs["preprocess"]
            return None if same else "one fingerprint, another preprocessing"
    return f"another bundle came out: {sorted(held)}"


def _forged(chooser: random.Random, whole: bytes, other: bytes) -> tuple[str, bytes]:
    members: Members = []
    for source in (whole, other):
        with zipfile.ZipFile(io.BytesIO(source)) as archive:
            members += [(info, archive.read(info)) for info in archive.infolist()]
    half = len(members) // 2
    ours, theirs = members[:half], members[half:]
    way = chooser.choice(list(_WAYS))
    changed = _WAYS[way](chooser, ours, theirs)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for info, content in changed:
            archive.writestr(info, content, info.compress_type)
        if chooser.random() < 0.1:
            archive.comment = b"a comment"
    return way, target.getvalue()


def _info(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def _rename(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    place = chooser.randrange(len(ours))
    names = (
        "../x",
        "/outside/x",
        "a/../../x",
        "C:x",
        "a\\b",
        "",
        "x/",
        "x" * 300,
        "é",
        "a\nb",
        "manifest.json",
        "engines/../x",
    )
    ours[place] = (_info(chooser.choice(names)), ours[place][1])
    return ours


def _add(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    names = (
        "more.txt",
        "engines/a/engine.json",
        "engines/a/b/c",
        "manifest.json",
        "MODEL.ONNX",
        "model.onnx/x",
        "../../x",
    )
    ours.insert(chooser.randrange(len(ours) + 1), (_info(chooser.choice(names)), b"{}"))
    return ours


def _special(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    place = chooser.randrange(len(ours))
    kind = chooser.choice((stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK))
    ours[place] = (_info(ours[place][0].filename, kind | 0o777), b"/etc/hostname")
    return ours


def _compress(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    info, _content = ours[chooser.randrange(len(ours))]
    info.compress_type = chooser.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return ours


def _drop(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    del ours[chooser.randrange(len(ours))]
    return ours


def _exchange(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    place = chooser.randrange(min(len(ours), len(theirs)))
    ours[place] = theirs[place]
    return ours


def _order(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    chooser.shuffle(ours)
    return ours


def _edit(chooser: random.Random, ours: Members, theirs: Members) -> Members:
    import json

    place = next(n for n, (info, _) in enumerate(ours) if info.filename == "manifest.json")
    changed = edited(chooser, json.loads(ours[place][1]))[1]
    ours[place] = (ours[place][0], signed(changed).encode())
    return ours


_WAYS: dict[str, Callable[[random.Random, Members, Members], Members]] = {
    "a member renamed": _rename,
    "a member more": _add,
    "a member made special": _special,
    "a member compressed": _compress,
    "a member dropped": _drop,
    "a member of the other": _exchange,
    "in another order": _order,
    "its manifest edited and signed": _edit,
}
