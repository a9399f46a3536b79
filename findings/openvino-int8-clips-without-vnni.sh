#!/usr/bin/env bash
# openvino 2026.4.1 on x86: an INT8 product (FakeQuantize, int8 weights) is exact on a CPU with VNNI and
# wrong without it, at the default settings and with INFERENCE_PRECISION_HINT=f32 and EXECUTION_MODE_HINT
# ACCURACY alike: pairs of 8-bit products are added in 16 bits and clip. Weights within +-64 are exact.
# Seen on an Intel Xeon with AMX, the second line with oneDNN held to AVX2 by its environment variable:
#     all of this CPU   full range 3e-08  half range 3e-08
#     AVX2              full range 1e-01  half range 3e-08
# Fails (exit 1) if that changes. Needs x86-64 with VNNI, Python >= 3.10 and network for pip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'openvino==2026.4.1' 'numpy==2.2.6' 2>/dev/null
cat > "$work/product.py" <<'PY'
import json
import numpy as np
import openvino
from openvino import Model, opset13 as ops

ROWS, K, N = 8, 192, 64
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}


def error(top):
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((K, N))
    weights = np.rint(top * spread / np.abs(spread).max(axis=0)).astype(np.int8)
    x = rng.integers(-128, 128, (ROWS, K))
    given = ops.parameter([ROWS, K], np.float32)
    low, high = np.float32(-1), np.float32(127 / 128)
    rounded = ops.fake_quantize(given, low, high, low, high, 256)
    scale = np.full((1, N), 1 / 127, np.float32)
    matrix = ops.multiply(ops.convert(ops.constant(weights), np.float32), ops.constant(scale))
    model = Model([ops.result(ops.matmul(rounded, matrix, False, False))], [given])
    run = openvino.Core().compile_model(model, "CPU", SETTINGS)
    got = run([(x / 128).astype(np.float32)])[0]
    wanted = x / 128 @ (weights / 127)
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


print(json.dumps({"full": error(127), "half": error(64)}))
PY
plain=$("$work/venv/bin/python" "$work/product.py")
avx2=$(ONEDNN_MAX_CPU_ISA=AVX2 "$work/venv/bin/python" "$work/product.py")
"$work/venv/bin/python" - "$plain" "$avx2" <<'PY'
import json
import sys

plain, avx2 = (json.loads(text) for text in sys.argv[1:])
for name, found in (("all of this CPU", plain), ("AVX2", avx2)):
    print(f"{name:<16}  full range {found['full']:.0e}  half range {found['half']:.0e}")
seen = plain["full"] < 1e-4 and plain["half"] < 1e-4 and avx2["full"] > 0.05 and avx2["half"] < 1e-4
print("as described" if seen else "this has changed (or the CPU has no VNNI)")
sys.exit(0 if seen else 1)
PY
