# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The same numbers are published on the bus and scraped over HTTP."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from helexa.bus.client import Bus
from helexa.process.metrics import Metrics
from helexa.protocol import subjects
from helexa.protocol.messages.events import HistogramSample, MetricsReport
from helexa.protocol.naming import random_id

LIMIT_S = 10


@pytest.mark.accepts("UTL-2")
def test_a_report_holds_counters_gauges_and_whole_histograms() -> None:
    metrics = Metrics("gateway", "i1")
    metrics.counter("requests", "Requests.", "route", "code").labels("chat", "200").inc(3)
    metrics.gauge("inflight_requests", "Now.").set(2)
    waits = metrics.histogram("queue_wait_seconds", "Waits.", "model", buckets=(0.1, 1.0))
    for seconds in (0.05, 0.5, 5.0):
        waits.labels("tiny").observe(seconds)

    report = metrics.report(5.0)

    assert (report.service, report.instance, report.interval_s) == ("gateway", "i1", 5.0)
    assert report.counters == {'helexa_requests_total{code="200",route="chat"}': 3.0}
    assert report.gauges == {"helexa_inflight_requests": 2.0}
    assert report.histograms == {
        'helexa_queue_wait_seconds{model="tiny"}': HistogramSample(
            count=3, sum=5.55, buckets={"0.1": 1, "1.0": 2, "+Inf": 3}
        )
    }


@pytest.mark.accepts("UTL-2")
def test_the_scraped_text_holds_the_same_numbers() -> None:
    metrics = Metrics("gateway", "i1")
    metrics.counter("requests", "Requests.").inc(3)

    [(name, value)] = metrics.report(5.0).counters.items()

    assert f"\n{name} {value}\n" in metrics.render().decode()


def test_the_text_is_that_of_prometheus_own_client() -> None:
    ours, theirs = Metrics("gateway", "i1"), CollectorRegistry()
    bounds = (0.001, 0.5, 10.0)
    for plain in (
        ours.counter("plain", "Plain."),
        Counter("helexa_plain", "Plain.", registry=theirs),
    ):
        plain.inc(2.5)
    for cut in (
        ours.counter("cut", "By \\ and\nmore.", "route", "code"),
        Counter("helexa_cut", "By \\ and\nmore.", ("route", "code"), registry=theirs),
    ):
        cut.labels("chat", 'a "quoted"\n\\ code').inc()
        cut.labels("chat", "").inc(7)
    for waits in (
        ours.histogram("waits_seconds", "Waits.", "model", buckets=bounds),
        Histogram("helexa_waits_seconds", "Waits.", ("model",), registry=theirs, buckets=bounds),
    ):
        for amount in (0.0005, 0.001, 0.0011, 0.5, 10.0, 10.1, 1e9):
            waits.labels("tiny").observe(amount)
    ours.counter("never", "Never counted.")
    Counter("helexa_never", "Never counted.", registry=theirs)
    ours.histogram("never_seconds", "Never.", buckets=bounds)
    Histogram("helexa_never_seconds", "Never.", registry=theirs, buckets=bounds)
    ours.histogram("never_cut_seconds", "Never.", "model", buckets=bounds)
    Histogram("helexa_never_cut_seconds", "Never.", ("model",), registry=theirs, buckets=bounds)

    assert ours.render() == generate_latest(theirs)


def test_a_name_is_given_once_and_labels_are_given_all() -> None:
    metrics = Metrics("gateway", "i1")
    pages = metrics.counter("pages", "Pages.", "page")

    with pytest.raises(ValueError, match="Duplicated"):
        metrics.histogram("pages_total", "Again.")
    with pytest.raises(ValueError, match="page"):
        pages.labels("status", "200")


@pytest.mark.accepts("UTL-2")
async def test_numbers_are_published_again_and_again_and_at_the_end(bus: Bus) -> None:
    service = f"s{random_id()}"
    metrics = Metrics(service, "i1")
    counter = metrics.counter("requests", "Requests.")
    heard: asyncio.Queue[MetricsReport] = asyncio.Queue()
    await bus.subscribe(subjects.METRICS, heard.put_nowait, service=service)

    publishing = asyncio.create_task(metrics.publish(bus, 0.01))
    first = await asyncio.wait_for(heard.get(), LIMIT_S)
    counter.inc()
    second = await asyncio.wait_for(heard.get(), LIMIT_S)
    while second.counters == first.counters:
        second = await asyncio.wait_for(heard.get(), LIMIT_S)
    counter.inc()
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    last = await asyncio.wait_for(heard.get(), LIMIT_S)
    while last.counters == second.counters:
        last = await asyncio.wait_for(heard.get(), LIMIT_S)

    assert second.counters == {"helexa_requests_total": 1.0}
    assert last.counters == {"helexa_requests_total": 2.0}
    assert last.uptime_s >= first.uptime_s
