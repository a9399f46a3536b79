"""Run a notebook in a kernel of this very interpreter: run_notebook.py NOTEBOOK FOLDER OUTPUT.

In a process of its own, as clients of kernels leave sockets and loops behind.
"""

from __future__ import annotations

import sys
import tempfile

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

source, folder, target = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
# Without folders to look in, the kernel is ipykernel's own: no other one is installed or taken.
own = KernelSpecManager(kernel_dirs=[])
with tempfile.TemporaryDirectory() as sockets:  # whose names must be short
    manager = AsyncKernelManager(kernel_spec_manager=own, transport="ipc", ip=f"{sockets}/k")
    NotebookClient(
        notebook, km=manager, timeout=240, resources={"metadata": {"path": folder}}
    ).execute()
nbformat.write(notebook, target)
