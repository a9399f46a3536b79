#!/usr/bin/env bash
# The built wheel with only its runtime extras, in a bare environment: no torch, no onnx package.
# Usage: edge_smoke.sh PYTHON WHEEL FOLDER, where FOLDER holds eet.fgd and photos/ with split.csv.
set -euo pipefail
python=$1 wheel=$(realpath "$2") folder=$3
env=$(mktemp -d)
trap 'rm -rf "$env"' EXIT
"$python" -m venv "$env"
"$env/bin/python" -m pip install --quiet "$wheel[cpu]"
cd "$folder"
for package in torch timm onnx onnxscript; do
  if "$env/bin/python" -c "import $package" 2>/dev/null; then
    echo "the runtime environment holds $package"
    exit 1
  fi
done
rm -rf g.fgi
fgdeploy="$env/bin/fgdeploy"
"$fgdeploy" --version
"$fgdeploy" hash photos -b eet.fgd -o codes.npz
"$fgdeploy" index add g.fgi photos/split.csv --split train -b eet.fgd
"$fgdeploy" search "$(find photos -name '*.jpg' | sort | head -n 1)" -i g.fgi -b eet.fgd -k 3
"$fgdeploy" eval photos/split.csv -b eet.fgd
"$fgdeploy" parity photos -b eet.fgd
echo "edge environment on $("$env/bin/python" --version): fine"
