"""A bundle's network in words: its options, tokens, MACs and files, as tables of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgdeploy.bundle import BlockRows, Manifest


@dataclass(frozen=True)
class Section:
    """A table of what a manifest says."""

    rows: Sequence[tuple[str, ...]]
    header: tuple[str, ...] = ()
    title: str = ""


def sections(manifest: Manifest) -> list[Section]:
    """Return all that a manifest says of the network and its files."""
    return [
        Section(_rows(manifest)),
        Section(
            _token_rows(manifest),
            ("blocks", "tokens", "queries", "proj and MLP"),
            "token rows through the blocks",
        ),
        Section(
            _macs(manifest.macs),
            ("network", "MACs", "of dense"),
            "multiply-accumulates per image",
        ),
        Section(_files(manifest), ("name", "bytes", "sha256"), "files (sizes and sha256 verified)"),
    ]


def _rows(manifest: Manifest) -> list[tuple[str, str]]:
    weights, photo = manifest.weights, manifest.preprocess
    scaled = "both sides" if photo.square else "short side"
    return [
        ("method", manifest.method),
        *((name, option(value)) for name, value in manifest.options.items()),
        ("backbone", f"{manifest.backbone} ({manifest.depth} blocks, width {manifest.width})"),
        (
            "input",
            f"{manifest.image_size} px, patches of {manifest.patch_size}: "
            f"{manifest.grid[0]}x{manifest.grid[1]} + {manifest.prefix_tokens} tokens",
        ),
        (
            "code",
            f"{manifest.bits} bits, {manifest.code_bytes} bytes, head {manifest.head['kind']}",
        ),
        ("weights", f"{weights['source']} (sha256 {weights['sha256'][:16]})"),
        ("fingerprint", manifest.fingerprint[:16]),
        (
            "photo",
            f"{scaled} to {photo.resize}, middle {photo.size} square, {photo.interpolation}",
        ),
        ("graph", f"opset {manifest.graph['opset']}, {', '.join(manifest.outputs)}"),
        *_classes(manifest),
        ("made by", manifest.created_by),
    ]


def _classes(manifest: Manifest) -> list[tuple[str, str]]:
    """Return a row on the classes where the graph gives logits."""
    if "logits" not in manifest.outputs:
        return []
    names = f"such as {manifest.classes[0]}" if manifest.classes else "without names"
    return [("classes", f"{manifest.outputs['logits'].shape[0]:,}, {names}")]


def _macs(held: Mapping[str, int]) -> list[tuple[str, str, str]]:
    names = ("dense", "published", "exported")
    return [(name, macs(held[name]), f"{held[name] / held['dense']:.0%}") for name in names]


def _files(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [
        (name, f"{facts['bytes']:,}", facts["sha256"][:16])
        for name, facts in manifest.files.items()
    ]


def proof_line(proof: Mapping[str, Any]) -> str:
    """Return the last proof in one line: what of it was recorded."""
    words = {
        "candidate": "{}",
        "reference": "against {}",
        "photos": "{} images",
        "max_hash_diff": "max |hash difference| {:.1e}",
        "bit_agreement": "{:.2%} of bits equal",
    }
    parts = [form.format(proof[name]) for name, form in words.items() if name in proof]
    line = ", ".join(parts).replace(", against", " against", 1)
    return f"last parity: {line}" if parts else ""


def _token_rows(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """Return rows for runs of blocks that do the same: numbers, tokens, rows of proj and MLP.

    Of a method that looks twice, one look behind the other.
    """
    groups: list[list[BlockRows]] = []
    for run in manifest.blocks:
        last = groups[-1][-1] if groups else None
        if last is not None and _work(last) == _work(run) and last.block + 1 == run.block:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [
        (_numbers(alike), str(alike[0].tokens), str(alike[0].query), str(alike[0].mlp))
        for alike in groups
    ]


def _numbers(runs: list[BlockRows]) -> str:
    first, last = runs[0].block, runs[-1].block
    return str(first) if first == last else f"{first}-{last}"


def _work(run: BlockRows) -> tuple[int, ...]:
    return (run.tokens, run.query, run.keyval, run.proj, run.mlp)


def macs(count: int) -> str:
    """Return multiply-accumulates with three digits and more, such as 2.274 G or 6.113 M."""
    return f"{count / 1e9:,.3f} G" if count >= 5e7 else f"{count / 1e6:,.3f} M"


def option(value: object) -> str:
    """Return an option's value in one line: pairs of numbers as `4:98, 8:49`."""
    if isinstance(value, list):
        items = (":".join(map(str, one)) if isinstance(one, list) else str(one) for one in value)
        return ", ".join(items) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "as published" if value is None else str(value)
