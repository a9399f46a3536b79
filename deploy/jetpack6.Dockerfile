# fgdeploy on a Jetson Orin with JetPack 6 (L4T R36, CUDA 12.6, TensorRT 10.3, Python 3.10).
#
#   make wheel                     # on the workstation; then on the Jetson:
#   docker build -f deploy/jetpack6.Dockerfile -t fgdeploy dist
#   docker run --runtime nvidia ... fgdeploy build-engine ...      docs/deploying.md
#
# Built so far: by nobody. What pip installs was resolved for Python 3.10 on aarch64. The base image
# and its contents are as others' public builds use them, not confirmed here; should it lack
# TensorRT's Python module, which is looked for below, take
# --build-arg BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0, which is larger.

ARG BASE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime

# hadolint ignore=DL3006
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY fgdeploy-*.whl /dist/
# TensorRT is the base image's: the one that the device's driver was made for. Looked for, not
# imported, as it needs libraries that the runtime puts into the container when it starts.
RUN python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('tensorrt') is None)" \
 && python3 -m venv --system-site-packages /opt/fgdeploy \
 && wheel=$(echo /dist/fgdeploy-*.whl) \
 && /opt/fgdeploy/bin/pip install --no-cache-dir "${wheel}[search,camera,serve]" "cuda-bindings>=12.6,<13" "numpy<2"
RUN useradd --system --uid 10001 --groups video --home-dir /data fgdeploy \
 && install --directory --owner=fgdeploy --group=fgdeploy /data /cache
ENV PATH=/opt/fgdeploy/bin:$PATH \
    NUMBA_CACHE_DIR=/cache \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1
USER 10001
# The bundle, with the engine that was built on this device, is mounted at /model.fgd.
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["fgdeploy"]
CMD ["serve", "--bundle", "/model.fgd", "--index", "/data/gallery.fgi", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/api-key", "--log-json"]
