# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""State changes and metrics, as JSON for people and for other tools."""

from helexa.protocol.messages.base import Record


class StateEvent(Record):
    """Something changed on this site. `at_ms` is the publisher's wall clock, for people."""

    type: str
    at_ms: int
    neuron_id: str | None = None
    model: str | None = None
    state: str | None = None
    reason: str = ""


class EventType:
    """The known types of `StateEvent`."""

    NEURON_REGISTERED = "neuron_registered"
    NEURON_REMOVED = "neuron_removed"
    NEURON_DEGRADED = "neuron_degraded"
    NEURON_ENROLLED = "neuron_enrolled"
    PROVISIONING_SENT = "provisioning_sent"
    PROVISIONING_RESPONSE = "provisioning_response"
    MODEL_STATE_CHANGED = "model_state_changed"
    PLACEMENT_CHANGED = "placement_changed"
    CORTEX_SHUTDOWN_NOTICE = "cortex_shutdown_notice"


class HistogramSample(Record):
    """A cumulative histogram: observations at or below each upper bound."""

    count: int
    sum: float
    buckets: dict[str, int]
    """Upper bound in the metric's unit (`+Inf` last) to the number at or below it."""


class MetricsReport(Record):
    """All numbers of one process, published every few seconds.

    Keys are Prometheus sample names with their labels, for example
    ``helexa_requests_total{code="200",model="helexa-tiny",route="chat"}``. Counters count from the
    start of the instance.
    """

    service: str
    instance: str
    """New at each start of the process."""
    at_ms: int
    uptime_s: float
    interval_s: float
    counters: dict[str, float] = {}
    gauges: dict[str, float] = {}
    histograms: dict[str, HistogramSample] = {}
