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
    account: str | None = None
    """The user whom it concerns."""
    actor: str | None = None
    """The user who did it."""
    key_id: str | None = None
    """The API key that it concerns."""


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
    USER_SIGNED_UP = "user_signed_up"
    USER_VERIFIED = "user_verified"
    USER_LOGGED_IN = "user_logged_in"
    USER_LOGGED_OUT = "user_logged_out"
    PASSWORD_CHANGED = "password_changed"
    PASSWORD_RESET = "password_reset"
    USER_ROLES_CHANGED = "user_roles_changed"
    USER_STATUS_CHANGED = "user_status_changed"
    KEY_CREATED = "key_created"
    KEY_CHANGED = "key_changed"
    KEY_REVOKED = "key_revoked"


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
