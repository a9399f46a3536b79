"""What `manifest.json` must hold: every entry of it that any code reads is declared here."""

from __future__ import annotations

from fgdeploy.core.codes import MAX_BITS, MIN_BITS
from fgdeploy.core.json_schema import (
    NAME,
    TEXT,
    Check,
    anything,
    flag,
    list_of,
    map_of,
    maybe,
    number,
    one_of,
    sha256,
    table,
    text,
    whole,
)
from fgdeploy.photos.images import INTERPOLATIONS

_MOST_PIXELS = 1 << 14  # of a side
_MOST_ROWS = (1 << 31) - 1
_MOST_BLOCKS = 1000
_MOST_MACS = 1 << 60
_MOST_BYTES = 1 << 53
_OBJECT = map_of(anything)
_NAMES = list_of(text())

SIDE = whole(1, _MOST_PIXELS)
DEPTH = whole(1, _MOST_BLOCKS)
BITS = whole(MIN_BITS, MAX_BITS)
PREFIX = whole(0, _MOST_ROWS)

# Options of a method are checked by the method, where one is at hand.
OPTIONS = _OBJECT

PREPROCESS = table(
    {
        "size": SIDE,
        "resize": whole(1, _MOST_PIXELS * 100),  # the smallest crop is a hundredth
        "interpolation": one_of(*INTERPOLATIONS),
        "mean": list_of(number(-1e6, 1e6), 3, 3),
        "std": list_of(number(1e-6, 1e6), 3, 3),
    },
    {
        "square": flag,
        "crop": one_of("center"),
        "colour": one_of("RGB"),
        "folded_into_graph": one_of(True),
    },
)

_ROWS = table(
    dict.fromkeys(("block", "tokens", "query", "keyval", "proj", "mlp"), whole(1, _MOST_ROWS))
)

_OUTPUT = table({"type": NAME, "shape": list_of(whole(1, _MOST_ROWS))})

GRAPH: dict[str, Check] = {
    "inputs": map_of(list_of(anything)),
    **dict.fromkeys(("simplifications", "pins", "half"), _NAMES),
}

LIMITS = table(
    {},
    {
        **dict.fromkeys(("max_hash_diff", "max_map_drop", "max_output_error"), number(0)),
        **dict.fromkeys(("min_bit_agreement", "min_identical", "min_top10"), number(0, 1)),
    },
)

_PART = number(0, 1)
_SHARES = ("top10_overlap", "map_reference", "map_candidate", "top1_agreement")
PARITY = table(
    {},
    {
        **dict.fromkeys(("reference", "candidate"), TEXT),
        **dict.fromkeys(("photos", "clear_bits_differ"), whole(0)),
        **dict.fromkeys(("max_hash_diff", "mean_hash_diff"), number(0)),
        **dict.fromkeys(("mean_cosine", "min_cosine"), number()),
        **dict.fromkeys(("bit_agreement", "identical_codes"), _PART),
        **dict.fromkeys(_SHARES, maybe(_PART)),
        "map_drop": maybe(number()),
        "output_errors": map_of(number(0)),
    },
)

_CALIBRATION = table(
    {},
    {
        "range": TEXT,
        "photos": whole(0),
        "in_float": _NAMES,
        "bit_agreement": maybe(_PART),
        "map_drop": maybe(number()),
    },
)

FILES = map_of(table({"sha256": sha256, "bytes": whole(0, _MOST_BYTES)}))

# run: the folder of the training; key: which network of the checkpoint, where it was said;
# rename: patterns for its names.
_WEIGHTS = table(
    {"source": TEXT, "sha256": sha256},
    {"seed": whole(0), "run": TEXT, "key": maybe(TEXT), "rename": list_of(TEXT)},
)
_MACS = whole(1, _MOST_MACS)

SCHEMA = table(
    {
        **dict.fromkeys(("method", "backbone", "created_by"), NAME),
        **dict.fromkeys(("image_size", "patch_size"), SIDE),
        "depth": DEPTH,
        "width": whole(1, _MOST_ROWS),
        "prefix_tokens": PREFIX,
        "bits": BITS,
        "grid": list_of(SIDE, 2, 2),
        "blocks": list_of(_ROWS),
        "options": OPTIONS,
        "deciding": _OBJECT,
        "head": table({"kind": NAME}),
        "preprocess": PREPROCESS,
        "outputs": map_of(_OUTPUT),
        "classes": _NAMES,
        "graph": table({"opset": whole(1, 1000)}, GRAPH),
        "macs": table(dict.fromkeys(("dense", "published", "exported"), _MACS)),
        "weights": _WEIGHTS,
        "fingerprint": sha256,
        "limits": LIMITS,
        "parity": maybe(PARITY),
        "calibration": maybe(_CALIBRATION),
        "files": FILES,
    }
)
