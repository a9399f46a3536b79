"""Give the commands every kind of input, damaged at random, and hold their answers to the truth.

    python benchmarks/faults/fuzz.py --tries 5000 --seed 0
    python benchmarks/faults/fuzz.py --only photo:17       # one try again; its folder is kept

Manifests, bundles, packs, lists, flags, photos and files of codes are changed; then a command is
given them, in this process and, each `--share`-th time, also as a process of its own, which must
say the same. It may refuse in one line and leave everything as it was. Or it takes the input: then
it must answer as an oracle does (codes of the unchanged bundle, rows of a strict reading, rankings
of plain distances). Prints a table and each fault; exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where fgdeploy is not installed

from fuzzing import bundles, code_files, flags, manifests, packs, pictures, tables
from fuzzing.running import InProcess, Outcome, as_process
from fuzzing.world import Attempt, World, build, remove

KINDS: Mapping[str, Callable[[random.Random, World], Attempt]] = {
    "manifest": manifests.attempt,
    "bundle": bundles.attempt,
    "pack": packs.attempt,
    "list": tables.attempt,
    "flags": flags.attempt,
    "photo": pictures.attempt,
    "codes": code_files.attempt,
}
_MOST_MEMORY = 12 << 30  # bytes of address space; a file that asks for more must be refused


class Fuzzer:
    """Tries one input after another and counts what comes of them."""

    def __init__(self, world: World, process: InProcess) -> None:
        self.world, self.process = world, process
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.seconds: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []

    def again(self, kind: str, seed: int) -> tuple[Attempt, dict[str, str]]:
        """Return a try, its input laid out in a fresh room, and what lies there now."""
        self.world.fresh()
        os.chdir(self.world.room)
        attempt = KINDS[kind](random.Random(f"{kind}:{seed}"), self.world)
        return attempt, self.world.snapshot()

    def once(self, kind: str, seed: int, twice: bool) -> Outcome:
        """Make a try and judge it. twice: also as a process of its own."""
        start = time.perf_counter()
        attempt, before = self.again(kind, seed)
        outcome = self.process.run(attempt.arguments)
        found = list(self._judged(attempt, outcome, before))
        self.seconds[kind] += time.perf_counter() - start
        if twice:
            attempt, before = self.again(kind, seed)
            alone = as_process(attempt.arguments)
            self.counts[kind, "processes"] += 1
            found += self._judged(attempt, alone, before)
            found += _differences(outcome, alone)
        self.counts[kind, "tries"] += 1
        self.counts[kind, "accepted" if outcome.accepted else f"exit {outcome.code}"] += 1
        for column in {column for column, _ in found}:
            self.counts[kind, column] += 1
        for column, text in found:
            self.faults.append(f"{kind}:{seed} {column}: {attempt.what}: {text}")
            self.process.tell(
                f"--only {self.faults[-1]}\n    {' '.join(attempt.arguments)[:300]!r}"
            )
        return outcome

    def _judged(
        self, attempt: Attempt, outcome: Outcome, before: dict[str, str]
    ) -> Iterator[tuple[str, str]]:
        for fault in outcome.faults():
            yield "tracebacks", fault
        after = self.world.snapshot()
        left = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
        if outside := [name for name in left if not name.startswith("room")]:
            yield "files left", f"{outside[:5]} outside"
        if not outcome.accepted:
            inside = len(left) > len(outside) and (outcome.refused or outcome.crash)
            if inside and (wrong := attempt.left(outcome)):
                yield "files left", f"{wrong}: {left[:5]} after {outcome.err[-200:]!r}"
            return
        try:
            wrong = attempt.judge(outcome)
        except Exception as error:
            wrong = f"the answer cannot be judged: {type(error).__name__}: {error}"
        if wrong:
            yield "wrong answers", wrong


def _differences(one: Outcome, other: Outcome) -> Iterator[tuple[str, str]]:
    for name in ("code", "out", "errors"):
        if getattr(one, name) != getattr(other, name):
            yield (
                "wrong answers",
                f"in a process {getattr(other, name)!r:.300}, expected {getattr(one, name)!r:.300}",
            )


_FAULTS = ("tracebacks", "wrong answers", "files left")


def table(fuzzer: Fuzzer) -> Iterator[str]:
    """Yield the lines of a table of what came of each kind."""
    codes = sorted({what for _, what in fuzzer.counts if what.startswith("exit")})
    columns = ("tries", "processes", "accepted", *codes, *_FAULTS)
    yield f"| kind | {' | '.join(columns)} | tries/s |"
    yield "|---" * (len(columns) + 2) + "|"
    kinds = [kind for kind in KINDS if fuzzer.counts[kind, "tries"]]
    for kind in kinds:
        rate = fuzzer.counts[kind, "tries"] / fuzzer.seconds[kind]
        row = (str(fuzzer.counts[kind, column]) for column in columns)
        yield f"| {kind} | {' | '.join(row)} | {rate:.1f} |"
    totals = [sum(fuzzer.counts[kind, column] for kind in kinds) for column in columns]
    rate = totals[0] / max(fuzzer.seconds.total(), 1e-9)
    yield f"| all | {' | '.join(map(str, totals))} | {rate:.1f} |"


def show(fuzzer: Fuzzer, kind: str, seed: int) -> None:
    """Make one try again and say all of it."""
    outcome = fuzzer.once(kind, seed, twice=False)
    attempt, _ = fuzzer.again(kind, seed)
    print(
        f"{attempt.what}\nfgdeploy {attempt.arguments!r:.2000}\nin {fuzzer.world.room}, made anew"
    )
    print(f"exit {outcome.code} after {outcome.seconds:.2f} s")
    texts = (outcome.out[:3000], outcome.err[:3000], outcome.crash)
    print("\n".join([*texts, *outcome.warned, *fuzzer.faults]))


def main() -> int:
    """Read the options, print the table; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tries", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", metavar="KIND:SEED", help="one try, and all that came of it")
    parser.add_argument("--share", type=int, default=50, help="each of so many as a process, too")
    parser.add_argument("--bundles", type=Path, nargs=2, help="two bundles; else they are exported")
    parser.add_argument("--folder", type=Path, help="where to work; default a temporary folder")
    options = parser.parse_args()
    given = [path.resolve() for path in options.bundles or ()]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=options.folder)).resolve()
    warnings.simplefilter("ignore")  # of what makes the input; those of a try are counted
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with InProcess() as process:
        fuzzer = Fuzzer(build(folder, given, process.run), process)
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, hard))
        if options.only:
            kind, _, seed = options.only.partition(":")
            show(fuzzer, kind, int(seed))
        else:
            for number in range(options.tries):
                turn, place = divmod(number, len(options.kinds))
                seed = options.seed * 1_000_000 + turn
                twice = (turn + place) % options.share == 0  # which gives every kind its share
                fuzzer.once(options.kinds[place], seed, twice)
    os.chdir("/")
    if not options.only:
        remove(folder)
        print("\n".join([*table(fuzzer), "", *(f"--only {fault}" for fault in fuzzer.faults)]))
    return int(bool(fuzzer.faults))


if __name__ == "__main__":
    sys.exit(main())
