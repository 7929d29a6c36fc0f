# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The headers of a message on the bus."""

from collections.abc import Mapping

from helexa.bus.context import REQUEST_ID, TRACEPARENT

REQUEST_ID_HEADER = "Helexa-Request-Id"
REMAINING_MS_HEADER = "Helexa-Remaining-Ms"
CLAIM_HEADER = "Helexa-Claim"
"""Name of the object that holds the body, where it is too large for one message."""
TRACEPARENT_HEADER = "traceparent"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"
ERROR_HEADER = "Nats-Service-Error"
EXPECTED_LAST_SEQUENCE_HEADER = "Nats-Expected-Last-Subject-Sequence"


def outgoing(remaining_s: float) -> dict[str, str]:
    """Return the headers of a request sent from the current context."""
    headers = {REMAINING_MS_HEADER: str(max(0, int(remaining_s * 1000)))}
    if request := REQUEST_ID.get():
        headers[REQUEST_ID_HEADER] = request
    if trace := TRACEPARENT.get():
        headers[TRACEPARENT_HEADER] = trace
    return headers


def remaining_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the caller waits, if it says so."""
    text = headers.get(REMAINING_MS_HEADER, "")
    return int(text) / 1000 if text.isdecimal() else None
