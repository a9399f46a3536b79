#!/usr/bin/env bash
# openvino 2026.4.1 on Linux: loading the CPU plugin gives the calling thread another alternate signal stack
# (sigaltstack) in place of its own, and a property that is only read is enough to load it. Python and
# faulthandler count on that stack staying as it was; a process has crashed at a later signal because of
# this. Loaded in a thread that ends, the plugin leaves the caller's stack alone. This script frees nothing
# and sends no signal; it only looks:
#     before            none, or the interpreter's own
#     loaded elsewhere  unchanged
#     loaded here       another one, of 20144 bytes on an Intel Xeon with AMX
# Fails (exit 1) if that changes. Needs Linux, Python >= 3.10 and network for pip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'openvino==2026.4.1' 'numpy==2.2.6' 2>/dev/null
cat > "$work/look.py" <<'PY'
import ctypes
import os
import sys
import threading

import openvino


class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def stack():
    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.address, found.size


def load():
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    kept.append(core)


kept = []
before = stack()
loader = threading.Thread(target=load)
loader.start()
loader.join()
in_a_thread = stack()
load()
here = stack()
print("before          ", before)
print("loaded elsewhere", in_a_thread)
print("loaded here     ", here)
same = in_a_thread == before and here != before
print("as described" if same else "this has changed")
sys.stdout.flush()
os._exit(0 if same else 1)  # nothing is freed
PY
"$work/venv/bin/python" "$work/look.py"
