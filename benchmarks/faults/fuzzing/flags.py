"""Flags: options and values of every command, walked from the command tree and made odd."""

from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

from fuzzing import oracles
from fuzzing.mutations import ODD_NUMBERS, ODD_TEXTS
from fuzzing.running import Outcome
from fuzzing.world import BUNDLE, CODES, INDEX, LINES, OTHER, PACK, PHOTOS, QUERY, Attempt, World

# Every command with arguments that work.
CALLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "demo": (("--species", "3"),),
    "train": ((PHOTOS, "--backbone", "test_vit", "--weights", "random"),),
    "export": (("--method", "eet", "--backbone", "test_vit", "--weights", "random"),),
    "calibrate": ((BUNDLE,),),
    "build-engine": ((BUNDLE, "--backend", "onnxruntime", "--data", PHOTOS),),
    "tune": (("--data", PHOTOS, "--latency", "8ms", "--engine", "missing:fp32"),),
    "inspect": ((BUNDLE,), (BUNDLE, "--json")),
    "report": ((BUNDLE, "-o", "new.html"), (BUNDLE, "--data", PHOTOS, "--no-timing", "--json")),
    "card": ((BUNDLE, "--json"), (BUNDLE, "--license", "MIT")),
    "doctor": (("--json",),),
    "parity": ((BUNDLE, PHOTOS, "--reference", "onnxruntime"),),
    "bench": ((BUNDLE, "--no-peaks", "--rounds", "1", "--seconds", "0.01"),),
    "pack": ((BUNDLE, "-o", "new.fgdz"),),
    "unpack": ((PACK, "-o", "new.fgd"),),
    "deepstream": ((BUNDLE, "-o", "new"), (BUNDLE, "--batch", "4", "--json")),
    "triton-repo": ((BUNDLE, "-o", "new"), (BUNDLE, "--max-batch", "4", "--json")),
    "sign": ((BUNDLE, "--key", "missing.pem"),),
    "verify": ((BUNDLE, "--key", "missing.pem"),),
    "push": ((BUNDLE, "nowhere"),),
    "pull": (("nowhere",),),
    "hash": ((PHOTOS, "-b", BUNDLE, "-o", "new.npz"), (QUERY,)),
    "search": (
        (QUERY, "-i", INDEX, "-b", BUNDLE, "--json"),
        (QUERY, "--json", "--radius", "8"),
        ("--id", "3", "--json"),
        ("--id", f"{INDEX}:3", "--json", "-i", INDEX),
        ("--code", "a5a5a0", "-k", "7", "--json", "-i", INDEX),
        ("--codes", CODES, "--json"),
        ("--id", "3", "--where", "label = 'owl'"),
        (QUERY, "--html", "sheet.html"),
    ),
    "serve": (
        ("-b", BUNDLE, "-i", INDEX, "--port", "0"),
        ("-b", BUNDLE, "--port", "0", "--no-page", "--explain", "--checkpoint", "missing"),
    ),
    "eval": ((PHOTOS, "-b", BUNDLE, "--json"),),
    "classify": ((PHOTOS, "-b", BUNDLE, "--json"), (QUERY, "-k", "3")),
    "boxes": ((PHOTOS, "--detector", "missing"),),
    "camera": ((PHOTOS, "-b", BUNDLE, "-i", INDEX, "--json"), (PHOTOS, "--frames", "3")),
    "explain": ((QUERY, "-b", BUNDLE, "-o", "new.png"), (PHOTOS, "-o", "new.html")),
    "index add": ((INDEX, QUERY, "-b", BUNDLE, "--keep-thumbnails"), ("new.fgi", PHOTOS)),
    "index embed": ((INDEX, "-b", BUNDLE, "--embeddings", "int8"), (INDEX, "--embeddings", "none")),
    "index migrate": ((INDEX, "-b", BUNDLE, "--json"), (INDEX, "--back")),
    "index push": ((INDEX, "--to", "milvus://127.0.0.1:1/birds", "--batch", "9", "--replace"),),
    "index prune": ((INDEX, "--dry-run"), (INDEX, "--missing-folders", "--where", "id > 150")),
    "index threshold": ((INDEX, "--json"), (INDEX, "--accept", "0.9", "--sample", "40")),
    "index remove": ((INDEX, "3", "5"), (INDEX, "--where", "label = 'kite'")),
    "index list": ((INDEX, "--json"), (INDEX, "-n", "4"), ("--where", "label = 'owl'", "--json")),
    "index compact": ((INDEX,),),
    "index verify": ((INDEX, "--json"),),
    "index stats": ((INDEX,),),
    "index export": ((INDEX, "new.jsonl"), (INDEX, "new.npz")),
    "index import": (("new.fgi", LINES), (INDEX, CODES)),
}  # fmt: skip
# Those that would work for long end in what cannot be.
ENDINGS = {
    "demo": ("--folder", QUERY),
    "train": ("-o", f"{PHOTOS}/run"),
    "export": ("-o", f"{QUERY}/x.fgd"),
    "calibrate": ("--data", QUERY),
    "serve": ("--host", "0.0.0.0"),
}
_RARE = (*ENDINGS, "bench", "build-engine", "doctor", "explain", "index push", "parity")

_PATHS = (
    BUNDLE, OTHER, INDEX, CODES, LINES, PACK, PHOTOS, QUERY, "other", "missing", "missing/x",
    "~", "loop", "", ".", "new.npz", "new.fgd", "new.fgdz", "new.jsonl", f"{QUERY}/x", "list.csv",
    f"{BUNDLE}/manifest.json", f"{INDEX}/index.sqlite", f"{PHOTOS}/owl", "\udcff.jpg", "-", "pipe",
    "http://localhost/x.jpg",
)  # fmt: skip
_TEXTS = (
    *(text for text in ODD_TEXTS if "\0" not in text), "1; DROP TABLE items", "label = 'owl'",
    "time", "(" * 2000, "onnxruntime", "onnxruntime:int8", "openvino", "openvino:fp32", ":", "eet",
    "a5a5a0", "A5A5AF", "\udcff", "test", "asymmetric", "tensorrt", "4:2", "'" * 999,
    "id in (select id from items)", "label like '%' || char(27)",
)  # fmt: skip
_NUMBERS = tuple(number for number in ODD_NUMBERS if "\0" not in number)


@functools.cache
def commands() -> dict[str, Any]:
    """Return every command that ends in work, by its words."""
    from typer.main import get_command

    from fgdeploy.cli.app import app

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, one in getattr(command, "commands", {}).items():
            yield from walk(one, (*words, name))
        if not hasattr(command, "commands"):
            yield " ".join(words), command

    found = dict(walk(get_command(app), ()))
    assert set(found) == set(CALLS), f"commands are {sorted(found)}; enter new ones in CALLS"
    return found


def attempt(chooser: random.Random, world: World) -> Attempt:
    """Make the arguments of a command odd, and run it."""
    os.mkfifo(world.room / "pipe")
    os.symlink("loop", world.room / "loop")
    rows = "".join(f"{name},{name.split('/')[1]},test\n" for name in world.photos)
    (world.room / "list.csv").write_text(f"path,class,split\n{rows}", encoding="utf-8")
    known = commands()
    often = [name for name in known if name not in _RARE]
    words = chooser.choice(often if chooser.random() < 0.93 else sorted(_RARE))
    arguments = list(chooser.choice(CALLS[words]))
    told = []
    for _ in range(chooser.choice((1, 1, 1, 2, 3))):
        way = chooser.choice(list(_WAYS))
        _WAYS[way](chooser, arguments, known[words])
        told.append(way)
    arguments += ENDINGS.get(words, ())
    return Attempt(
        f"{words}: {', '.join(told)}",
        (*words.split(), *arguments),
        lambda outcome: _judge(world, words, known[words], arguments, outcome),
    )


def _odd(chooser: random.Random) -> str:
    return chooser.choice(chooser.choice((_PATHS, _TEXTS, _NUMBERS)))


def _replace(chooser: random.Random, arguments: list[str], command: Any) -> None:
    if arguments:
        arguments[chooser.randrange(len(arguments))] = _odd(chooser)


def _add_option(chooser: random.Random, arguments: list[str], command: Any) -> None:
    options = [one for one in command.params if one.param_type_name == "option"]
    if not options:
        return _add_word(chooser, arguments, command)
    one = chooser.choice(options)
    place = chooser.choice((0, len(arguments)))
    flag = chooser.choice((*one.opts, *one.secondary_opts))
    arguments[place:place] = [flag] if one.is_flag else [flag, _odd(chooser)]


def _add_word(chooser: random.Random, arguments: list[str], command: Any) -> None:
    arguments.insert(chooser.randrange(len(arguments) + 1), _odd(chooser))


def _drop(chooser: random.Random, arguments: list[str], command: Any) -> None:
    if arguments:
        arguments.pop(chooser.randrange(len(arguments)))


def _swap(chooser: random.Random, arguments: list[str], command: Any) -> None:
    if len(arguments) > 1:
        one, two = chooser.sample(range(len(arguments)), 2)
        arguments[one], arguments[two] = arguments[two], arguments[one]


def _double(chooser: random.Random, arguments: list[str], command: Any) -> None:
    if arguments:
        arguments.insert(chooser.randrange(len(arguments)), chooser.choice(arguments))


_WAYS: dict[str, Callable[[random.Random, list[str], Any], None]] = {
    "a value replaced": _replace,
    "a value replaced too": _replace,
    "an option more": _add_option,
    "another option more": _add_option,
    "a word more": _add_word,
    "a word dropped": _drop,
    "words swapped": _swap,
    "a word twice": _double,
}


# What is right


def _judge(
    world: World, words: str, command: Any, arguments: list[str], outcome: Outcome
) -> str | None:
    """Return what is wrong with an accepted answer, as far as its kind is known here."""
    if any(flag in arguments for flag in ("-h", "--help")):
        return None
    given = command.make_context(words, list(arguments), resilient_parsing=False).params
    if (judge := _JUDGES.get(words)) and (wrong := judge(world, given, outcome)):
        return wrong
    changed = _changed(world, words, given)
    return f"{changed} changed" if changed else None


def _changed(world: World, words: str, given: dict[str, Any]) -> str | None:
    """Return what a command changed that only reads it."""
    for folder, may in (
        (INDEX, ("index ",)),
        (BUNDLE, ("calibrate", "build-engine", "card", "parity")),
    ):
        for file in (world.folder / "template" / folder).iterdir():
            there = world.room / folder / file.name
            if not words.startswith(may) and there.read_bytes() != file.read_bytes():
                return f"{folder}/{file.name}"
    return None


def _search(world: World, given: dict[str, Any], outcome: Outcome) -> str | None:
    """Hold `--json` without filters to plain rankings; an item is no answer to itself."""
    plain = given["where"] is None and given["rerank"] is None and not given.get("exclude_self")
    if not given["as_json"] or not plain:
        return None
    truth, items = world.codes[world.fingerprint], {item["id"]: item for item in world.items}
    queries = [(truth.get(os.path.normpath(path)), None) for path in given["photos"] or ()]
    for number in (int(text.rpartition(":")[2]) for text in given["ids"] or ()):
        queries.append((bytes.fromhex(items[number]["code"]), number))
    queries += [(bytes.fromhex(code), None) for code in given["codes"] or ()]
    if given["code_file"] is not None:
        queries += [(truth[name], None) for name in world.photos]
    lines = outcome.out.splitlines()
    if len(queries) != len(lines):
        return f"{len(lines)} answers for {len(queries)} queries"
    for line, (code, own) in zip(lines, queries, strict=True):
        others = [item for item in world.items if item["id"] != own]
        if code is None:
            return "an answer to a query that is none"
        right = oracles.ranking(code, others, given["k"], given["radius"])
        if wrong := oracles.wrong_hits(line, right):
            return wrong
    return None


def _hash(world: World, given: dict[str, Any], outcome: Outcome) -> str | None:
    """Hold the file to what the photos below a folder give; of a list nothing is known here."""
    source = os.path.normpath(given["source"])
    below = [name for name in world.codes[world.fingerprint] if f"{name}/".startswith(f"{source}/")]
    if source.endswith(".csv"):
        below = world.photos
    elif source == ".":
        below = list(world.codes[world.fingerprint])
    return oracles.wrong_codes(world, world.room / given["output"], below)


def _list(world: World, given: dict[str, Any], outcome: Outcome) -> str | None:
    if not given["as_json"] or given["where"] is not None:
        return None
    wanted = list(world.items)[: given["limit"]]
    return (
        None
        if [json.loads(line) for line in outcome.out.splitlines()] == wanted
        else "another list"
    )


_JUDGES: dict[str, Callable[[World, dict[str, Any], Outcome], str | None]] = {
    "search": _search,
    "hash": _hash,
    "index list": _list,
}
