"""Prometheus metrics: latency, batches, the queue, and the served model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from erasediff.records.core import ServedModel
from erasediff.serve.batches import Batcher, Images, Sampler
from erasediff.serve.request import SamplingRequest
from erasediff.serve.revocations import RevocationsFile

REQUESTS = Histogram(
    "erasediff_request_seconds", "Seconds from a request to its answer.", ["status"], buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
)
BATCHES = Histogram("erasediff_batch_images", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
SAMPLING = Histogram("erasediff_sampling_seconds", "Seconds of one batch in the sampler.", buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100))
FAILURES = Counter("erasediff_sampling_failures", "Batches whose sampling failed unexpectedly.")
SERVED = Gauge(
    "erasediff_served_info",
    "The served model; always 1.",
    ["dataset", "onnx_sha256", "weights_sha256", "solver", "verdict"],
)
EPOCH = Gauge("erasediff_erasure_epoch", "The served model's erasure epoch.")


class _LiveCollector(Collector):  # type: ignore[misc]
    """Reads counters of other objects when Prometheus scrapes."""

    def __init__(self, batcher: Batcher, revocations: RevocationsFile | None) -> None:
        self._batcher, self._revocations = batcher, revocations

    def collect(self) -> Iterator[Metric]:
        load = self._batcher.load
        yield GaugeMetricFamily("erasediff_waiting_images", "Images in the queue.", value=self._batcher.waiting)
        yield CounterMetricFamily("erasediff_images", "Images that were sampled.", value=load.images)
        yield CounterMetricFamily("erasediff_refused", "Requests refused because the queue was full.", value=load.refused)
        yield CounterMetricFamily("erasediff_late", "Requests that waited too long.", value=load.late)
        if self._revocations is not None:
            state = self._revocations.state()
            yield GaugeMetricFamily(
                "erasediff_revocations_number", "The signed list of revocations in force; 0 before the first.", value=state.number
            )
            yield GaugeMetricFamily("erasediff_revocations_good", "1 if the file holds the list in force.", value=state.good)


def describe(model: ServedModel, batcher: Batcher, revocations: RevocationsFile | None = None) -> None:
    """Register the metrics of the served model; call once per process."""
    SERVED.labels(model.dataset, model.onnx.sha256, model.weights_sha256, model.solver, str(model.verdict)).set(1)
    EPOCH.set(model.epoch)
    REGISTRY.register(_LiveCollector(batcher, revocations))


def with_metrics(sampler: Sampler) -> Sampler:
    """Wrap a sampler with metrics."""

    def measured(asked: list[SamplingRequest]) -> Images:
        BATCHES.observe(sum(one.count for one in asked))
        with SAMPLING.time(), FAILURES.count_exceptions():
            return sampler(asked)

    return measured


class ResponseStatus:
    """The status of the answer."""

    status = 500


@contextmanager
def timed_request() -> Iterator[ResponseStatus]:
    """Measure one request; the caller sets the status."""
    answer, started = ResponseStatus(), time.perf_counter()
    try:
        yield answer
    finally:
        REQUESTS.labels(answer.status).observe(time.perf_counter() - started)
