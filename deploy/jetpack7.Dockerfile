# fgdeploy on a Jetson with JetPack 7 (Ubuntu 24.04, CUDA 13, Python 3.12).
#
#   make wheel                     # on the workstation; then on the Jetson:
#   docker build -f deploy/jetpack7.Dockerfile -t fgdeploy dist
#   docker run --runtime nvidia ... fgdeploy build-engine ...      docs/deploying.md
#
# L4T is the release of NVIDIA's package repository, and must be the device's:
#   r38.4   JetPack 7.1, Jetson Thor: CUDA 13.0, TensorRT 10.13
#   r39.2   JetPack 7.2, Thor and Orin: CUDA 13.2, TensorRT 10.16
#
# Built so far: by nobody. What pip installs was resolved for Python 3.12 on aarch64. The repository
# and its package names are as others' public builds use them, not confirmed here. Not based on a
# `...-igpu` image: its TensorRT wants libnvdla_compiler.so, which JetPack 7 has no more.

FROM ubuntu:24.04
ARG L4T=r38.4
ADD --chmod=644 https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /etc/apt/keyrings/nvidia-jetson.asc
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && for part in common som; do \
      echo "deb [signed-by=/etc/apt/keyrings/nvidia-jetson.asc] https://repo.download.nvidia.com/jetson/$part $L4T main"; \
    done > /etc/apt/sources.list.d/nvidia-jetson.list \
 && apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv python3-libnvinfer tensorrt-libs \
 && rm -rf /var/lib/apt/lists/*
COPY fgdeploy-*.whl /dist/
# TensorRT is the system's: the one that the device's driver was made for.
RUN python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('tensorrt') is None)" \
 && python3 -m venv --system-site-packages /opt/fgdeploy \
 && wheel=$(echo /dist/fgdeploy-*.whl) \
 && /opt/fgdeploy/bin/pip install --no-cache-dir "${wheel}[search,camera,serve]" "cuda-bindings>=13,<14"
RUN useradd --system --uid 10001 --groups video --home-dir /data fgdeploy \
 && install --directory --owner=fgdeploy --group=fgdeploy /data /cache
ENV PATH=/opt/fgdeploy/bin:$PATH \
    NUMBA_CACHE_DIR=/cache \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
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
