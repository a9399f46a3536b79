#!/usr/bin/env bash
# av (PyAV) 18.1.0: fflags=nobuffer, which recipes for low latency set, loses the first frame of a well-formed
# MJPEG stream over HTTP, with and without the parts' Content-Length: a camera that sends a picture now and
# then shows it one late. And the stream's proper end (closing boundary, connection closed) is no end of the
# loop but OSError (EIO). Seen on Linux x86-64, Python 3.11:
#     Content-Length True   no options  frames [0, 1, 2, 3]  then OSError
#     Content-Length True   nobuffer    frames [1, 2, 3]  then OSError
#     Content-Length False  no options  frames [0, 1, 2, 3]  then OSError
#     Content-Length False  nobuffer    frames [1, 2, 3]  then OSError
# Fails (exit 1) if that changes. Needs Python >= 3.11 and network for pip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'av==18.1.0' 'numpy==2.2.6' 'pillow==12.0.0' 2>/dev/null
cat > "$work/stream.py" <<'PY'
import io
import socket
import sys
import threading
import time

import av
import numpy as np
from PIL import Image

COUNT, STEP = 4, 50


def jpeg(number):
    noise = np.random.default_rng(number).integers(0, 40, (240, 320, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise + np.uint8(STEP * number)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def serve(listening, with_length):
    client, _ = listening.accept()
    client.recv(65536)
    kind = b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    client.sendall(b"HTTP/1.0 200 OK\r\n" + kind + b"\r\n")
    for part in map(jpeg, range(COUNT)):
        length = b"Content-Length: %d\r\n" % len(part) if with_length else b""
        head = b"--frame\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n"
        client.sendall(head + part + b"\r\n")
        time.sleep(0.1)
    client.sendall(b"--frame--\r\n")
    client.close()


def read(with_length, options):
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    threading.Thread(target=serve, args=(listening, with_length), daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    numbers, end = [], "the end of the loop"
    try:
        with av.open(url, timeout=(10, 10), options=options) as container:
            for frame in container.decode(video=0):
                grey = frame.to_ndarray(format="gray").mean()
                numbers.append(round((float(grey) - 20) / STEP))
    except Exception as error:
        end = type(error).__name__
    return numbers, end


seen = True
for with_length in (True, False):
    for name, options, first in (("no options", {}, 0), ("nobuffer", {"fflags": "nobuffer"}, 1)):
        numbers, end = read(with_length, options)
        print(f"Content-Length {with_length!s:<5}  {name:<10}  frames {numbers}  then {end}")
        seen = seen and (numbers, end) == (list(range(first, COUNT)), "OSError")
print("as described" if seen else "this has changed")
sys.exit(0 if seen else 1)
PY
"$work/venv/bin/python" "$work/stream.py" 2>/dev/null
