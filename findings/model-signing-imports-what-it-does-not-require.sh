#!/usr/bin/env bash
# model-signing 1.1.1 with sigstore 4.5.1: a fresh `pip install` of it cannot be imported, as it imports OpenSSL
# (the package pyOpenSSL), which neither of the two requires any more. With pyOpenSSL beside it, it can:
#     alone            ModuleNotFoundError: No module named 'OpenSSL'
#     with pyopenssl   imported
# Fails (exit 1) if that changes. Needs Python >= 3.11 and network for pip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'model-signing==1.1.1' 'sigstore==4.5.1' 2>/dev/null
try() { "$work/venv/bin/python" -c 'from model_signing import signing; print("imported")' 2>&1 | tail -1; }
alone=$(try || true)
"$work/venv/bin/pip" install --quiet pyopenssl 2>/dev/null
with=$(try || true)
echo "alone            $alone"
echo "with pyopenssl   $with"
if [ "$alone" = "ModuleNotFoundError: No module named 'OpenSSL'" ] && [ "$with" = imported ]; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi
