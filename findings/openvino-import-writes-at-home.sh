#!/usr/bin/env bash
# openvino 2026.4.1 with openvino-telemetry 2025.2.0, which pip installs along: `import openvino` alone writes a
# client id and counts under HOME, before any model is read. DO_NOT_TRACK=1 changes nothing, and the CI=1
# of build machines neither. Where openvino_telemetry cannot be imported, OpenVINO does without it:
# nothing is written, and it works as before.
#     left alone          ./intel/openvino_ga_cid ./intel/stats
#     DO_NOT_TRACK=1      the same two
#     CI=1                the same two
#     without the package nothing
# Fails (exit 1) if that changes. Needs Linux, Python >= 3.10 and network for pip; the runs need none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'openvino==2026.4.1' 'openvino-telemetry==2025.2.0' 'numpy==2.2.6' 2>/dev/null
look() {
  home=$(mktemp -d -p "$work")
  env HOME="$home" "$1" "$work/venv/bin/python" -c "$2" 2>/dev/null
  (cd "$home" && find . -type f | sort | tr '\n' ' ')
}
plain='import openvino'
blocked='import sys; sys.modules["openvino_telemetry"] = None; import openvino; openvino.Core()'
alone=$(look UNUSED=1 "$plain")
asked=$(look DO_NOT_TRACK=1 "$plain")
built=$(look CI=1 "$plain")
without=$(look UNUSED=1 "$blocked")
printf '%-20s%s\n' 'left alone' "$alone" DO_NOT_TRACK=1 "$asked" CI=1 "$built" 'without the package' "${without:-nothing}"
both='./intel/openvino_ga_cid ./intel/stats '
if [ "$alone" = "$both" ] && [ "$asked" = "$both" ] && [ "$built" = "$both" ] && [ -z "$without" ]; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi
