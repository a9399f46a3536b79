#!/usr/bin/env bash
# The built wheel with only its runtime extras, in a bare environment: no torch, no onnx package.
# Usage: edge_smoke.sh PYTHON WHEEL FOLDER, where FOLDER holds photos/ with split.csv and eet.fgd,
# calibrated, so that engines are built here from what the bundle carries and nothing else.
set -euo pipefail
python=$1 wheel=$(realpath "$2") folder=$(realpath "$3")
env=$(mktemp -d)
work=$(mktemp -d)
trap 'rm -rf "$env" "$work"' EXIT
"$python" -m venv "$env"
"$env/bin/python" -m pip install --quiet "$wheel[cpu]"
lacks() {
  for package in "$@"; do
    if "$env/bin/python" -c "import $package" 2>/dev/null; then
      echo "the runtime environment holds $package"
      exit 1
    fi
  done
}
lacks torch timm onnx onnxscript
ln -s "$folder/photos" "$work/photos"
mkdir "$work/home"
fgdeploy() {
  HOME="$work/home" "$env/bin/fgdeploy" "$@"
}
fgdeploy --version

# To the device as one file; from here on the folder that it came from is not read.
fgdeploy pack -b "$folder/eet.fgd" -o "$work/eet.fgdz"
cd "$work"
fgdeploy unpack eet.fgdz
fgdeploy doctor
fgdeploy hash photos -o fp32.npz
fgdeploy index add g.fgi photos/split.csv --split train
fgdeploy search "$(find photos/ -name '*.jpg' | sort | head -n 1)" -i g.fgi -k 3
fgdeploy eval photos/split.csv
fgdeploy parity photos
fgdeploy index compact g.fgi
fgdeploy index verify g.fgi
fgdeploy index export g.fgi g.jsonl
fgdeploy index import again.fgi g.jsonl
fgdeploy search --id 1 -i again.fgi -k 3 --where "label is not null"

# INT8 engines, held to the frames in the bundle; then one of them hashes, and travels along. Where
# OpenVINO's INT8 is wrong (x86 without VNNI) it must be refused in words, and ONNX Runtime goes on.
int8="openvino onnxruntime"
if ! "$env/bin/python" -c "from fgdeploy.engines.openvino import OpenVinoEngine as e
e.check_arithmetic('int8')" 2>said; then
  grep -qF 'INT8 is wrong on this CPU' said
  int8=onnxruntime
  if fgdeploy build-engine --int8 --backend openvino --no-time 2>said; then
    echo "an INT8 engine that is wrong on this CPU was built"
    exit 1
  fi
  grep -qF 'INT8 is wrong on this CPU' said
fi
for backend in $int8; do
  fgdeploy build-engine --int8 --backend "$backend" --no-time
  fgdeploy hash photos -o int8.npz --backend "$backend:int8"
  fgdeploy parity photos --candidate "$backend:int8" --min-bit-agreement 0.95 \
    --min-top10 0.8 --max-map-drop 2
done
fgdeploy eval photos/split.csv
fgdeploy pack --engines -o with-engines.fgdz
fgdeploy unpack with-engines.fgdz -o again.fgd
fgdeploy hash photos -o again.npz -b again.fgd --backend "${int8%% *}:int8"
if fgdeploy calibrate --again -b eet.fgd 2>said || ! grep -qF 'fgdeploy[calibrate]' said; then
  echo "calibrate without the onnx package: expected the extra to install, got: $(cat said)"
  exit 1
fi

# With one engine library alone.
"$env/bin/python" -m pip uninstall --quiet --yes onnxruntime
lacks onnxruntime
rm -rf eet.fgd/engines again.fgd
fgdeploy hash photos -o fp32.npz
precision=--int8
[ "$int8" = onnxruntime ] && precision=--fp32
fgdeploy build-engine $precision --no-time
fgdeploy hash photos -o alone.npz

# The compiled search gives what NumPy gave so far.
lacks numba
"$env/bin/python" -m pip install --quiet "$wheel[search]"
"$env/bin/python" - <<'END'
import numpy as np
from fgdeploy.retrieval import search_codes

chooser = np.random.default_rng(0)
codes = chooser.integers(0, 256, (200_000, 9), dtype=np.uint8)
for queries in (codes[:1], codes[:70]):
    compiled, plain = (search_codes(queries, codes, 20, kernel=k) for k in ("numba", "numpy"))
    assert all(np.array_equal(one, other) for one, other in zip(compiled, plain))
END

# The camera over a folder, and the service: both give a photo the code that `hash` gives.
lacks av fastapi
"$env/bin/python" -m pip install --quiet "$wheel[camera,serve]"
fgdeploy camera photos --index g.fgi --json >seen.jsonl
"$env/bin/python" - "$env/bin/fgdeploy" "$work/home" <<'END'
import json, pathlib, re, signal, subprocess, sys, urllib.request

program, home = sys.argv[1:]
seen = [json.loads(line) for line in open("seen.jsonl", encoding="utf-8")]
photos = sorted(pathlib.Path("photos").rglob("*.jpg"))
assert len(seen) == len(photos), (len(seen), len(photos))
command = [program, "serve", "--index", "g.fgi", "--port", "0"]
output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
with subprocess.Popen(command, env={"HOME": home}, **output) as service:
    try:
        at = next(filter(None, (re.search(r"http://127\S+[0-9]", line) for line in service.stdout)))
        image = urllib.request.Request(f"{at[0]}/hash", photos[0].read_bytes())
        image.add_header("Content-Type", "image/jpeg")
        answer = json.load(urllib.request.urlopen(image, timeout=30))
        assert answer["code"] in {one["code"] for one in seen}, answer
        for path, kind in (("/", "text/html"), ("/page/app.js", "text/javascript")):
            with urllib.request.urlopen(at[0] + path, timeout=30) as page:
                assert page.headers["Content-Type"].startswith(kind) and page.read(), path
        service.send_signal(signal.SIGTERM)
        assert service.wait(10) == 0, service.returncode
    finally:
        service.kill()
END
lacks torch timm onnx cv2

left=$(find "$work/home" -mindepth 1)
if [ -n "$left" ]; then
  echo "left in the home folder: $left"
  exit 1
fi
echo "edge environment on $("$env/bin/python" --version): fine"
