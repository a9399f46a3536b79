"""Cut the power while a gallery index is written: nothing but what was synced is sure to be there.

    python benchmarks/faults/power.py --cuts 1000 --seed 0 [--synchronous FULL]

A child works on an index as in `kill.py`, under strace, which records every write, sync and change
of a folder. From that record a disk is built as it may be after a cut at any moment: what was
synced is there; of what was not, nothing, all, the first part, or any 512-byte sectors, in any
order; of names made and removed in a folder since it was synced, the first few. Then the index is
opened: every acknowledged change must be there, the one under way whole or not at all, searches
right and `verify` without complaint. --synchronous lets SQLite promise less (OFF, NORMAL, FULL), to
see that such a disk does lose what was not synced; that is then counted, not an error. Needs
strace.

Not modelled: disks that lie about a sync, and damage to sectors that were not written.
"""

from __future__ import annotations

import argparse
import collections
import copy
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import kill

from fgdeploy.core.errors import FgdeployError
from fgdeploy.retrieval.store.session import Session

SECTOR = 512
CALLS = "openat,close,lseek,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,unlinkat"
REFUSED = (
    "writev,pwritev,pwritev2,copy_file_range,sendfile,fallocate,link,linkat,renameat,renameat2"
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += +(-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_HANDLE = re.compile(r"^(\d+)<")


@dataclass
class File:
    """A file's content, and what was done to it since the last sync: (place, bytes) or a length."""

    synced: bytes = b""
    since: list[tuple[int, bytes] | int] = field(default_factory=list)

    def after(self, chooser: random.Random) -> bytes:
        """Return what may be left of it."""
        content, way = bytearray(self.synced), chooser.randrange(4)
        done = self.since[: chooser.randrange(len(self.since) + 1)] if way == 2 else self.since
        if way == 3:
            done = chooser.sample(done, len(done))
        for change in done if way else []:
            if isinstance(change, int):
                content = content[:change].ljust(change, b"\0")
                continue
            place, data = change
            cuts = {0, len(data)}
            if way == 3:
                cuts.update(range(-place % SECTOR, len(data), SECTOR))
            edges = sorted(cuts)
            for start, end in itertools.pairwise(edges):
                if way == 3 and chooser.random() < 0.5:
                    continue
                content = content.ljust(place + end, b"\0")
                content[place + start : place + end] = data[start:end]
        return bytes(content)


class Disk:
    """One folder of files, as processes see it and as it is sure to be after a cut."""

    def __init__(self, folder: Path) -> None:
        self.names = {path.name: File(path.read_bytes()) for path in folder.iterdir()}
        self.synced = dict(self.names)
        self.since: list[tuple[str, File | None]] = []  # a name, and what it stands for from now on

    def name(self, name: str, file: File | None) -> None:
        """Let a name stand for a file, or for none any more."""
        if file is None:
            del self.names[name]
        else:
            self.names[name] = file
        self.since.append((name, file))

    def after(self, chooser: random.Random) -> dict[str, bytes]:
        """Return the files that may be left by a cut now."""
        left = dict(self.synced)
        for name, file in self.since[: chooser.randrange(len(self.since) + 1)]:
            if file is None:
                left.pop(name, None)
            else:
                left[name] = file
        return {name: file.after(chooser) for name, file in left.items()}


class Replay:
    """Goes through a record of system calls, keeping the disk and what the writer told."""

    def __init__(self, folder: Path, told: Path, disk: Disk) -> None:
        self.folder, self.told, self.disk = str(folder), str(told), disk
        self.lines: list[str] = []
        self._open: dict[int, File | str] = {}
        self._at: dict[int, int] = {}

    def steps(self, record: Path) -> Iterator[str]:
        """Yield after each call that changed the disk, or told something."""
        waiting: dict[str, str] = {}
        with open(record, encoding="ascii", errors="replace") as stream:
            for line in stream:
                number, _, rest = line.partition(" ")
                if "<unfinished ...>" in rest:
                    waiting[number] = rest.partition("<unfinished")[0]
                    continue
                if " resumed>" in rest:
                    rest = waiting.pop(number) + rest.partition(" resumed>")[2]
                found = _LINE.match(f"{number} {rest.strip()}")
                if found and int(found[4]) >= 0 and self._do(found[2], found[3], int(found[4])):
                    yield found[2]

    def _do(self, call: str, given: str, result: int) -> bool:
        texts = [bytes.fromhex(text.replace("\\x", "")) for text, cut in _TEXT.findall(given)]
        handle = int(found[1]) if (found := _HANDLE.match(given)) else -1
        if call == "openat":
            return self._do_open(os.fsdecode(texts[0]), given, result)
        if call in ("rename", "unlink", "unlinkat"):
            paths = [os.path.split(os.fsdecode(text)) for text in texts]
            if paths[0][0] != self.folder:
                return False
            file = self.disk.names[paths[0][1]]
            self.disk.name(paths[0][1], None)
            if call == "rename":
                self.disk.name(paths[1][1], file)
            return True
        target = self._open.get(handle)
        if target is None:
            return False
        if call == "close":
            del self._open[handle]
        elif target == self.told:
            self.lines += texts[0].decode().splitlines() if call == "write" else []
            return call == "write"
        elif call in ("fsync", "fdatasync"):
            return self._sync(target)
        elif call == "lseek":
            self._at[handle] = result
        elif isinstance(target, str):
            raise SystemExit(f"{call} on {target}: not understood")
        elif call in ("write", "pwrite64"):
            place = self._at[handle] if call == "write" else int(given.rpartition(", ")[2])
            target.since.append((place, texts[0][:result]))
            self._at[handle] += result if call == "write" else 0
            return True
        elif call == "ftruncate":
            target.since.append(int(given.rpartition(", ")[2]))
            return True
        else:
            raise SystemExit(f"{call} on a file of the index: not understood")
        return False

    def _do_open(self, path: str, given: str, handle: int) -> bool:
        folder, name = os.path.split(path)
        self._open.pop(handle, None)
        if path in (self.told, self.folder):
            self._open[handle] = path
        if folder != self.folder:
            return False
        fresh = name not in self.disk.names
        if fresh:
            self.disk.name(name, File())
        self._open[handle], self._at[handle] = self.disk.names[name], 0
        if "O_TRUNC" in given or "O_APPEND" in given:
            raise SystemExit(f"{path} opened with {given}: not understood")
        return fresh

    def _sync(self, target: File | str) -> bool:
        if isinstance(target, str):
            self.disk.synced, self.disk.since = dict(self.disk.names), []
            return True
        content = bytearray(target.synced)
        for change in target.since:
            if isinstance(change, int):
                content = content[:change].ljust(change, b"\0")
            else:
                place, data = change
                content = content.ljust(place, b"\0")
                content[place : place + len(data)] = data
        target.synced, target.since = bytes(content), []
        return True


def child(path: Path, told: Path, seed: int, changes: int, synchronous: str) -> None:
    """Make so many changes, as `kill.py` does; runs under strace."""
    kill.small_files()
    handle, done = os.open(told, os.O_WRONLY), 0

    def tell(text: str) -> None:
        nonlocal done
        os.write(handle, f"{text}\n".encode())
        done += text.startswith("done")
        if done == changes:
            os._exit(0)

    if synchronous != "EXTRA":
        connect = Session._connect

        def careless(session: Session) -> object:
            connection = connect(session)
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            return connection

        Session._connect = careless  # type: ignore[method-assign, assignment]
    kill.work(path, kill.IndexState(), seed, tell)


def record(folder: Path, seed: int, changes: int, synchronous: str) -> tuple[Replay, Path]:
    """Let a child change a new index, and return what it did."""
    path, told, trace = folder / "cut.fgi", folder / "told", folder / "trace"
    shutil.rmtree(path, ignore_errors=True)
    kill.make(path)
    told.write_bytes(b"")
    replay = Replay(path, told, Disk(path))
    command = ["strace", "-f", "-y", "-xx", "-s", "99999999", "-e", f"trace={CALLS},{REFUSED}"]
    command += ["-o", str(trace), sys.executable, __file__, "--child", str(path), str(told)]
    command += [str(seed), str(changes), synchronous]
    subprocess.run(command, check=True)
    return replay, trace


def cut(folder: Path, replay: Replay, chooser: random.Random, counts: kill.Counts) -> None:
    """Build a disk as it may be after a cut now, and look at it. Raises SystemExit for a loss."""
    kind, may_be = kill.follow(replay.lines, kill.IndexState())
    left = folder / "left.fgi"
    shutil.rmtree(left, ignore_errors=True)
    left.mkdir()
    for name, content in replay.disk.after(chooser).items():
        (left / name).write_bytes(content)
    try:
        kill.look(left, may_be, counts, kind)
    except FgdeployError as error:
        raise SystemExit(f"LOST: {error}") from error


def run(folder: Path, cuts: int, seed: int, synchronous: str) -> tuple[kill.Counts, int]:
    """Return where so many cuts fell, and how many lost something."""
    kill.small_files()
    chooser, counts, lost = random.Random(seed), kill.Counts(), 0
    made = 0
    while made < cuts:
        replay, trace = record(folder, chooser.randrange(1 << 30), 40, synchronous)
        moments = sum(1 for _ in copy.deepcopy(replay).steps(trace))
        wanted = collections.Counter(chooser.choices(range(moments), k=min(100, cuts - made)))
        for moment, _ in enumerate(replay.steps(trace)):
            for _ in range(wanted[moment]):
                made += 1
                try:
                    cut(folder, replay, chooser, counts)
                except SystemExit as loss:
                    if synchronous == "EXTRA":
                        raise
                    lost += 1
                    print(f"cut {made}: {loss}", file=sys.stderr)
    return counts, lost


def main() -> None:
    """Read the options and print the table."""
    if sys.argv[1:2] == ["--child"]:
        path, told, seed, changes, synchronous = sys.argv[2:]
        child(Path(path), Path(told), int(seed), int(changes), synchronous)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--synchronous", default="EXTRA")
    parser.add_argument("--folder", type=Path, help="where to work; default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        counts, lost = run(Path(name).resolve(), options.cuts, options.seed, options.synchronous)
    if options.synchronous == "EXTRA":
        print("\n".join(kill.table(counts, "cut")))
    else:
        print(f"synchronous = {options.synchronous}: {lost} of {options.cuts} cuts lost something")


if __name__ == "__main__":
    sys.exit(main())
