"""What every try begins with: bundles, photos, an index, files of codes, and their truth."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.running import ONLY_HERE, Outcome, as_process

BUNDLE, OTHER, INDEX, CODES, LINES = "a.fgd", "other/b.fgd", "g.fgi", "codes.npz", "items.jsonl"
PACK, OTHER_PACK, PHOTOS, QUERY = "other/a.fgdz", "other/b.fgdz", "photos", "query.png"
ENGINE = "other/engines"  # those of BUNDLE, for tries that want them there
BITS = 20  # not whole bytes, so that padding counts
_STRANGERS = 60  # items of the index that have no photo

Run = Callable[[Sequence[str]], Outcome]
Judge = Callable[[Outcome], "str | None"]


@dataclass(frozen=True)
class Attempt:
    """A command on an input that was changed.

    judge: what is wrong with an accepted answer. left: what is wrong with what was left in the room
    by a refusal that says so; by default anything is.
    """

    what: str
    arguments: tuple[str, ...]
    judge: Judge
    left: Judge = lambda outcome: "refused, but not as it was"


@dataclass(frozen=True)
class World:
    """The undamaged things, by name in `room`, where each try finds a fresh copy of them.

    codes: fingerprint -> photo -> code, for both bundles. items: all of the index, by id.
    """

    folder: Path
    codes: Mapping[str, Mapping[str, bytes]]
    items: Sequence[Mapping[str, Any]]
    fingerprint: str

    @property
    def room(self) -> Path:
        """Return the folder that commands run in."""
        return self.folder / "room"

    @property
    def photos(self) -> list[str]:
        """Return the names of the photos, sorted."""
        return [name for name in self.codes[self.fingerprint] if name != QUERY]

    def fresh(self) -> Path:
        """Return the room, made anew."""
        remove(self.room)
        shutil.copytree(self.folder / "template", self.room, symlinks=True)
        return self.room

    def read(self, name: str) -> bytes:
        """Return what an undamaged file holds."""
        return (self.folder / "template" / name).read_bytes()

    def snapshot(self) -> dict[str, str]:
        """Return what lies where commands may write: the room, HOME and TMPDIR."""
        return snapshot(self.folder, ("room", "home", "temp"))


def remove(folder: Path) -> None:
    """Remove a folder, whatever the rights in it."""
    if folder.exists():
        for root, names, _ in os.walk(folder):
            for name in names:
                if not os.path.islink(path := os.path.join(root, name)):
                    os.chmod(path, 0o755)
        shutil.rmtree(folder)


def snapshot(folder: Path, inside: Sequence[str]) -> dict[str, str]:
    """Return name -> content (as a digest), target of a link or kind of what lies in folders."""
    found: dict[str, str] = {}
    for top in inside:
        for root, folders, files in os.walk(folder / top):
            for name in (*folders, *files):
                path = Path(root, name)
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    what = f"link to {os.readlink(path)}"
                elif stat.S_ISREG(mode):
                    what = hashlib.sha256(path.read_bytes()).hexdigest()
                else:
                    what = "folder" if stat.S_ISDIR(mode) else "special"
                found[str(path.relative_to(folder))] = what
    return found


def build(folder: Path, bundles: Sequence[Path], run: Run) -> World:
    """Make the world in an empty folder, from two bundles, or such as are exported and built now.

    The process works in it from then on, with a HOME and a TMPDIR of its own. run: runs a command.
    """
    for name in ("home", "temp", "template"):
        (folder / name).mkdir()
    os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "temp"), "COLUMNS": "100"}
    os.environ[ONLY_HERE] = str(folder / "torch")
    room = folder / "room"
    (room / "other").mkdir(parents=True)
    os.chdir(room)
    _photos(room / PHOTOS)
    _bundles(room, bundles, run)
    codes = dict(map(_codes, (BUNDLE, OTHER)))
    assert len(codes) == 2, "both bundles have one fingerprint"
    items = _index(next(iter(codes)), run)
    os.chdir(folder)
    shutil.copytree(room, folder / "template", symlinks=True, dirs_exist_ok=True)
    for name in ("home", "temp"):  # what building leaves is the fault of no try
        remove(folder / name)
        (folder / name).mkdir()
    return World(folder, codes, items, next(iter(codes)))


def _do(run: Run, *arguments: str) -> str:
    outcome = run(arguments)
    assert outcome.code == 0, f"{' '.join(arguments)}: {outcome.err}{outcome.crash}"
    return outcome.out


def _bundles(room: Path, given: Sequence[Path], run: Run) -> None:
    """Put both bundles and their packs in place; lay the engines of BUNDLE aside."""
    for number, name in enumerate((BUNDLE, OTHER)):
        if given:
            shutil.copytree(given[number], room / name)
            continue
        options = ["--backbone", "test_vit", "--weights", "random", "--image-size", "32"]
        options += ["--stages", "2:3", "--head", "lsh", "--bits", str(BITS), "--seed", str(number)]
        options += ["--no-time", "-o", name]
        done = as_process(["export", "--method", "eet", *options])  # torch stays out
        assert done.code == 0, done.err
    if not given:
        _do(run, "build-engine", BUNDLE, "--fp32", "--backend", "openvino", "--data", PHOTOS)
    if (engines := Path(BUNDLE, "engines")).is_dir():
        shutil.move(engines, ENGINE)
    for bundle, pack in ((BUNDLE, PACK), (OTHER, OTHER_PACK)):
        _do(run, "pack", bundle, "-o", pack)


def _photos(folder: Path) -> None:
    from PIL import Image

    chooser = np.random.default_rng(3)
    for number in range(12):
        label = ("owl", "wren", "barn owl")[number % 3]
        (folder / label).mkdir(parents=True, exist_ok=True)
        coarse = chooser.integers(0, 256, (5, 6, 3), np.uint8)
        image = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
        image.save(folder / label / f"{number}.{'jpg' if number % 2 else 'png'}")
    image.save(folder.parent / QUERY)


def _codes(bundle: str) -> tuple[str, dict[str, bytes]]:
    """Return the fingerprint and the code of each photo."""
    import fgdeploy

    names = [*sorted(str(path) for path in Path(PHOTOS).rglob("*.*")), QUERY]
    with fgdeploy.load(bundle) as hasher:
        assert hasher.bits == BITS, f"{bundle} has {hasher.bits} bits, expected {BITS}"
        codes = hasher.encode([Path(name) for name in names])
        return hasher.fingerprint, {n: bytes(c) for n, c in zip(names, codes, strict=True)}


def _index(fingerprint: str, run: Run) -> list[dict[str, Any]]:
    """Make the index and the files of codes; return the items."""
    _do(run, "index", "add", INDEX, PHOTOS, "-b", BUNDLE)
    chooser = random.Random(5)
    head = {"fgdeploy_index": 1, "bits": BITS, "fingerprint": fingerprint, "items": _STRANGERS}
    lines = [json.dumps(head)]
    for number in range(_STRANGERS):
        code = (chooser.randrange(1 << BITS) << 4).to_bytes(3, "big").hex()
        more = {"label": chooser.choice(("owl", "wren", "kite")), "json": f'{{"n": {number}}}'}
        lines.append(
            json.dumps({"id": 100 + 3 * number, "code": code, "path": f"/cam/{number}", **more})
        )
    Path(LINES).write_text("\n".join(lines) + "\n", encoding="utf-8")
    _do(run, "index", "import", INDEX, LINES)
    _do(run, "index", "export", INDEX, LINES)
    _do(run, "hash", PHOTOS, "-b", BUNDLE, "-o", CODES)
    told = _do(run, "index", "list", INDEX, "--json")
    return [json.loads(line) for line in told.splitlines()]
