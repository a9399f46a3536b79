# fgdeploy on x86-64 and other CPUs, with OpenVINO and ONNX Runtime.
#
#   make wheel
#   docker build -f deploy/x86.Dockerfile -t fgdeploy dist
#
# Built so far: by nobody. What pip installs was resolved for this Python, and the same wheel with the
# same extras runs in .ci/edge_smoke.sh. How to run it: docs/deploying.md.

FROM python:3.12-slim-bookworm AS build
COPY fgdeploy-*.whl /dist/
RUN python -m venv /opt/fgdeploy \
 && wheel=$(echo /dist/fgdeploy-*.whl) \
 && /opt/fgdeploy/bin/pip install --no-cache-dir "${wheel}[cpu,search,camera,serve]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/fgdeploy /opt/fgdeploy
RUN useradd --system --uid 10001 --groups video --home-dir /data fgdeploy \
 && install --directory --owner=fgdeploy --group=fgdeploy /data /cache
ENV PATH=/opt/fgdeploy/bin:$PATH \
    NUMBA_CACHE_DIR=/cache \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1
USER 10001
# The bundle (read-only) is mounted at /model.fgd, the gallery lies in /data.
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["fgdeploy"]
CMD ["serve", "--bundle", "/model.fgd", "--index", "/data/gallery.fgi", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/api-key", "--log-json"]
