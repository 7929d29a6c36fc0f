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

STATUS = "Status"
"""Under this name a server's own word about a message is found, for example 503."""
DESCRIPTION = "Description"
NO_RESPONDERS = b"NATS/1.0 503"
"""How the block begins that tells that nobody serves a subject."""

_VERSION = "NATS/1.0"
_LINE_ENDS = str.maketrans("\r\n", "  ")


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


def encode(headers: Mapping[str, str]) -> bytes:
    """Return the block of `headers` as it goes before a message's data.

    A line end in a value becomes a blank, so that no value can add a header or an operation.
    """
    text = _VERSION + "\r\n"
    for name, value in headers.items():
        clean = value if value.isprintable() else value.translate(_LINE_ENDS)
        # nats-py's names are an enumeration, which an f-string would not write as their text.
        text += name + ": " + clean + "\r\n"
    return (text + "\r\n").encode()


def decode(block: bytes) -> dict[str, str]:
    """Return the headers in `block`, whoever has written it.

    Names keep their case, of two lines of one name the last one counts, and what is no header line
    is passed over, as nats-py does. A server's status line gives `STATUS` and `DESCRIPTION`.
    """
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    fields: dict[str, str] = {}
    if len(first) > len(_VERSION):
        status, _, description = first[len(_VERSION) :].strip().partition(" ")
        if status.isdecimal():
            fields[STATUS] = status
        if description:
            fields[DESCRIPTION] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            name = name.strip()
            if name.isascii() and name.isprintable() and " " not in name:
                fields[name] = value.strip()
    return fields
