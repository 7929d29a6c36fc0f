# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Numbers about a process: one registry, published on the bus and scraped over HTTP.

Names follow Prometheus: base units, `_total`, `_seconds`, `_bytes`. No key, user or request id is
ever a label.
"""

import asyncio
import contextlib
import logging
import time

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from helexa.bus.client import Bus
from helexa.process.tallies import Counter, Histogram, Reading
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.events import HistogramSample, MetricsReport

_log = logging.getLogger(__name__)

LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""Upper bounds for durations, from a local hop to a cold load."""
disable_created_metrics()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The numbers of one process."""

    def __init__(self, service: str, instance: str) -> None:
        """Name the process that the numbers are about."""
        self.service = service
        self.instance = instance
        self.registry = CollectorRegistry()
        self._started = time.monotonic()

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Return a new counter `helexa_<name>_total`."""
        counter = Counter(f"helexa_{name}", text, labels)
        self.registry.register(counter)
        return counter

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Return a new gauge `helexa_<name>`."""
        return Gauge(f"helexa_{name}", text, labels, registry=self.registry)

    def reading(self, name: str, text: str, *labels: str) -> Reading:
        """Return a new gauge `helexa_<name>` that is read when somebody looks."""
        reading = Reading(f"helexa_{name}", text, labels)
        self.registry.register(reading)
        return reading

    def histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """Return a new histogram `helexa_<name>`."""
        histogram = Histogram(f"helexa_{name}", text, labels, buckets)
        self.registry.register(histogram)
        return histogram

    def render(self) -> bytes:
        """Return all numbers in Prometheus's text format."""
        return generate_latest(self.registry)

    def report(self, interval_s: float) -> MetricsReport:
        """Return all numbers as they are published."""
        counters: dict[str, float] = {}
        gauges: dict[str, float] = {}
        histograms: dict[str, HistogramSample] = {}
        for family in self.registry.collect():
            if family.type == "histogram":
                histograms |= _histograms(family)
            else:
                kept = counters if family.type == "counter" else gauges
                kept |= {
                    _key(sample): sample.value
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                }
        return MetricsReport(
            service=self.service,
            instance=self.instance,
            at_ms=int(time.time() * 1000),
            uptime_s=round(time.monotonic() - self._started, 3),
            interval_s=interval_s,
            counters=counters,
            gauges=gauges,
            histograms=histograms,
        )

    async def publish(self, bus: Bus, interval_s: float) -> None:
        """Publish a report every `interval_s` seconds until cancelled, and once more at the end."""
        try:
            while True:
                await self._publish_once(bus, interval_s)
                await asyncio.sleep(interval_s)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await self._publish_once(bus, interval_s)

    async def _publish_once(self, bus: Bus, interval_s: float) -> None:
        if not bus.is_connected:
            return
        try:
            await bus.publish(subjects.METRICS, self.report(interval_s), service=self.service)
        except HelexaError as error:
            _log.debug("metrics_lost", extra={"error": error.message})


def _key(sample: Sample, drop: str | None = None) -> str:
    labels = ",".join(
        f'{name}="{value}"' for name, value in sorted(sample.labels.items()) if name != drop
    )
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def _histograms(family: Metric) -> dict[str, HistogramSample]:
    buckets: dict[str, dict[str, int]] = {}
    sums: dict[str, float] = {}
    for sample in family.samples:
        key = _key(sample, drop="le").replace(sample.name, family.name, 1)
        if sample.name.endswith("_bucket"):
            buckets.setdefault(key, {})[sample.labels["le"]] = int(sample.value)
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    return {
        key: HistogramSample(count=found["+Inf"], sum=sums.get(key, 0.0), buckets=found)
        for key, found in buckets.items()
    }
