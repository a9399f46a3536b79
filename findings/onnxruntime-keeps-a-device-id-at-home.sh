#!/usr/bin/env bash
# onnxruntime 1.32.0 (the CPU package) on Linux: importing it, or running one session, writes an id of the
# machine and a database of events under HOME, though telemetry was long a matter of Windows builds alone.
# The variable ORT_DISABLE_TELEMETRY=1, set before the import, keeps HOME empty; calling
# disable_telemetry_events() after the import comes too late.
#     left alone               .cache/Microsoft/DeveloperTools/.onnxruntime/{deviceid,onnxruntime.db}
#     disabled after import    the same two
#     ORT_DISABLE_TELEMETRY=1  nothing
# Fails (exit 1) if that changes. Needs Linux, Python >= 3.11 and network for pip; the runs need none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'onnxruntime==1.32.0' 'onnx==1.22.0' 'numpy==2.2.6' 2>/dev/null
cat > "$work/run.py" <<'PY'
import sys
import time

import onnxruntime

if sys.argv[1:] == ["late"]:
    onnxruntime.disable_telemetry_events()
import numpy as np
from onnx import TensorProto, helper

value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones(2, np.float32)})
time.sleep(1)
PY
look() {
  mkdir -p "$work/$1"
  env -u XDG_CACHE_HOME HOME="$work/$1" "${@:3}" "$work/venv/bin/python" "$work/run.py" ${2:+"$2"} 2>/dev/null
  (cd "$work/$1" && find . -type f | sort)
}
alone=$(look alone "" env)
late=$(look late late env)
off=$(look off "" env ORT_DISABLE_TELEMETRY=1)
printf 'left alone:\n%s\ndisabled after import:\n%s\nORT_DISABLE_TELEMETRY=1:\n%s\n' "$alone" "$late" "${off:-nothing}"
both=./.cache/Microsoft/DeveloperTools/.onnxruntime
both="$both/deviceid"$'\n'"$both/onnxruntime.db"
if [ "$alone" = "$both" ] && [ "$late" = "$both" ] && [ -z "$off" ]; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi
