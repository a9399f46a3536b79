"""What the service counts and times, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fgdeploy.core.errors import FgdeployError, MissingDependency
from fgdeploy.serve.service import Service
from fgdeploy.serve.uploads import UploadGate

try:
    from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingDependency("prometheus-client", "serve", "the service") from error

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_TOGETHER = (1, 2, 4, 8, 16, 32, 64)
_STAGES = ("decode", "queue", "inference", "search", "total")

TYPE = CONTENT_TYPE_LATEST


class ServiceMetrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self, service: Service, gate: UploadGate) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "fgdeploy_requests",
            "Requests, by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        times = Histogram(
            "fgdeploy_stage_seconds",
            "Seconds of each stage: decode (with its wait), queue, inference (of a batch), search, "
            "total (from the first byte of the body).",
            ("stage",),
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._times = {stage: times.labels(stage) for stage in _STAGES}
        self._together = Histogram(
            "fgdeploy_batch_frames",
            "Frames in the batch in which each one ran.",
            registry=self.registry,
            buckets=_TOGETHER,
        )
        self.registry.register(_State(service, gate))
        ProcessCollector(registry=self.registry)

    def count(self, route: str, method: str, status: int) -> None:
        """Count one request that was answered."""
        self._requests.labels(route, method, status).inc()

    def time(self, latency: Mapping[str, float], together: int = 0) -> None:
        """Note the seconds of some stages; together: frames in its batch, 0 for none."""
        for stage, seconds in latency.items():
            self._times[stage].observe(seconds)
        if together:
            self._together.observe(together)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    """What is so at the moment of asking."""

    def __init__(self, service: Service, gate: UploadGate) -> None:
        self._service, self._gate = service, gate

    def describe(self) -> list[Metric]:
        return []  # else all would be asked for at once

    def collect(self) -> Iterator[Metric]:
        worker, hasher = self._service.worker, self._service.hasher
        ready = self._service.unready() is None
        gauges = {
            "fgdeploy_ready": ("Whether the service can answer.", float(ready)),
            "fgdeploy_queue_frames": ("Frames that wait for the engine.", len(worker)),
            "fgdeploy_uploads": ("Requests with an image under way.", self._gate.under_way),
        }
        if self._service.has_index and (size := _items(self._service)) is not None:
            gauges["fgdeploy_index_items"] = ("Items of the index.", size)
        for name, (what, value) in gauges.items():
            yield GaugeMetricFamily(name, what, value)
        counters = {
            "fgdeploy_frames": ("Frames that the engine ran.", worker.answered),
            "fgdeploy_engine_rebuilds": ("Times the engine was opened anew.", worker.rebuilt),
            "fgdeploy_refused": (
                "Images that were refused because too many waited.",
                worker.refused + self._gate.refused,
            ),
        }
        for name, (what, value) in counters.items():
            yield CounterMetricFamily(name, what, value)
        manifest, engine = hasher.manifest, hasher.engine
        yield InfoMetricFamily(
            "fgdeploy_engine",
            "The engine that runs.",
            {"backend": engine.backend, "precision": engine.precision, "runs": engine.describe()},
        )
        yield InfoMetricFamily(
            "fgdeploy_model",
            "The model.",
            {
                "method": manifest.method,
                "backbone": manifest.backbone,
                "bits": str(manifest.bits),
                "fingerprint": manifest.fingerprint,
            },
        )


def _items(service: Service) -> int | None:
    try:
        return len(service.index)
    except FgdeployError:  # /readyz says why
        return None
