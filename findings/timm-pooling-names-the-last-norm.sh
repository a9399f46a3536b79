#!/usr/bin/env bash
# timm 1.0.31: what a ViT or an EVA pools decides what its last norm is called, `norm` (class token) or `fc_norm`
# (mean of the patches). So the weights of a model that pools patches by default, all of EVA-02, EVA-L and BEiT-3,
# do not load into the same model made for its class token (global_pool="token"), though no weight differs.
# Seen on a random EVA-02 tiny:
#     missing    norm.bias norm.weight
#     unexpected fc_norm.bias fc_norm.weight
# Fails (exit 1) if that changes. Needs Python >= 3.11 and network for pip (torch: some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'timm==1.0.31' 'torch==2.14.1' 2>/dev/null
cat > "$work/pooling.py" <<'PY'
import timm

name = "eva02_tiny_patch14_224"
weights = timm.create_model(name).state_dict()
missing, unexpected = timm.create_model(name, global_pool="token").load_state_dict(
    weights, strict=False
)
print("missing", *sorted(missing))
print("unexpected", *sorted(unexpected))
PY
seen=$("$work/venv/bin/python" -W ignore "$work/pooling.py")
echo "$seen"
expected="missing norm.bias norm.weight
unexpected fc_norm.bias fc_norm.weight"
[ "$seen" = "$expected" ] || { echo "changed; expected: $expected"; exit 1; }
