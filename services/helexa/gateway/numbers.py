# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The gateway's metrics and the closing log line, both made of the same report."""

import logging
import time
from collections.abc import Callable
from operator import attrgetter

from helexa.gateway.http import Incoming, Report
from helexa.process.logs import FrequentEvent
from helexa.process.metrics import Metrics
from helexa.process.tallies import Count, Spread

_request_done = FrequentEvent(logging.getLogger(__name__), "request_done")

_SAID = (
    "code",
    "stream",
    "workload",
    "priority",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "finish",
    "client_gone",
    "attempts",
    "neuron",
    "decision",
)
"""What the closing line says of a report where there is something to say."""
_said_by = attrgetter(*_SAID)
_TOKENS = ("input", "output", "cached", "reasoning")
_tokens_of = attrgetter("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
"""The counts of `_TOKENS` in a report."""


class Numbers:
    """Counts what the gateway does."""

    def __init__(self, metrics: Metrics) -> None:
        """Declare the metrics."""
        self._requests = metrics.counter(
            "requests", "Requests that have ended, by HTTP status", "route", "model", "code"
        )
        self._first_token = metrics.histogram(
            "time_to_first_token_seconds", "From arrival to the first event", "model"
        )
        self._duration = metrics.histogram(
            "request_duration_seconds", "From arrival to the end", "route", "model"
        )
        self._overhead = metrics.histogram(
            "overhead_seconds", "From arrival to a neuron's acceptance, without waiting for room"
        ).labels()
        self._queue_wait = metrics.histogram(
            "queue_wait_seconds", "Waiting for room", "model", "priority"
        )
        self._queue_depth = metrics.gauge("queue_depth", "Requests that wait for room", "model")
        self._tokens = metrics.counter("tokens", "Tokens that were used", "type", "model")
        self._attempts = metrics.counter("attempts", "Neurons that were asked").labels()
        self._inflight = 0
        inflight = metrics.gauge("inflight_requests", "Requests being served")
        inflight.set_function(lambda: self._inflight)
        self._ignored = metrics.counter("frames_ignored", "Frames that did not count")
        self._gone = metrics.counter("clients_gone", "Clients that left before the end", "route")

        self._by_outcome: dict[tuple[str, str, int], tuple[Count, Spread]] = {}
        self._by_model: dict[tuple[str, str], tuple[Spread, Spread]] = {}

    def began(self) -> None:
        """Count a request that is being served."""
        self._inflight += 1

    def show_line(self, model: str, depth: Callable[[], int]) -> None:
        """Show how many wait for `model` whenever somebody looks."""
        self._queue_depth.labels(model).set_function(depth)

    def ended(self, incoming: Incoming) -> None:
        """Count a request that has ended, and write its line."""
        report, elapsed_s = incoming.report, time.monotonic() - incoming.arrived
        self._inflight -= 1
        requests, duration = self._of_outcome(report.route, report.model, report.status)
        requests.inc()
        duration.observe(elapsed_s)
        if report.client_gone:
            self._gone.labels(report.route).inc()
        if report.attempts:
            self._count_answer(report)
        elif report.queue_s:
            self._queue_wait.labels(report.model, report.priority).observe(report.queue_s)
        _request_done.tell(_line(report, elapsed_s))

    def _of_outcome(self, route: str, model: str, status: int) -> tuple[Count, Spread]:
        """Return the numbers of what ended so. They are looked up once, not for each request."""
        found = self._by_outcome.get((route, model, status))
        if found is None:
            found = self._by_outcome[route, model, status] = (
                self._requests.labels(route, model, str(status)),
                self._duration.labels(route, model),
            )
        return found

    def _count_answer(self, report: Report) -> None:
        key = (report.model, report.priority)
        found = self._by_model.get(key)
        if found is None:
            found = self._by_model[key] = (
                self._queue_wait.labels(*key),
                self._first_token.labels(report.model),
            )
        queue_wait, first_token = found
        queue_wait.observe(report.queue_s)
        self._attempts.inc(report.attempts)
        if report.ignored_frames:
            self._ignored.inc(report.ignored_frames)
        if report.accepted_s is not None:
            self._overhead.observe(max(0.0, report.accepted_s - report.queue_s))
        if report.first_token_s is not None:
            first_token.observe(report.first_token_s)
        for kind, count in zip(_TOKENS, _tokens_of(report), strict=True):
            if count:
                self._tokens.labels(kind, report.model).inc(count)


def _line(report: Report, elapsed_s: float) -> dict[str, object]:
    line: dict[str, object] = {
        "route": report.route,
        "model": report.model,
        "status": report.status,
        "ms": round(elapsed_s * 1000, 1),
    }
    if report.first_token_s is not None:
        line["first_token_ms"] = round(report.first_token_s * 1000, 1)
    if report.queue_s:
        line["queue_ms"] = round(report.queue_s * 1000, 1)
    line |= {name: value for name, value in zip(_SAID, _said_by(report), strict=True) if value}
    return line
