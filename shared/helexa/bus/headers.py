# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The headers of a message on the bus."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from helexa.bus.context import REQUEST_ID, TRACEPARENT

REQUEST_ID_HEADER = "Helexa-Request-Id"
REMAINING_MS_HEADER = "Helexa-Remaining-Ms"
CLAIM_HEADER = "Helexa-Claim"
"""Name of the object that holds the body, where it is too large for one message."""
TRACEPARENT_HEADER = "traceparent"
ERROR_CODE_HEADER = "Nats-Service-Error-Code"
ERROR_HEADER = "Nats-Service-Error"
EXPECTED_LAST_SEQUENCE_HEADER = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_STREAM_SEQUENCE_HEADER = "Nats-Expected-Last-Sequence"
EXPECTED_STREAM_HEADER = "Nats-Expected-Stream"

STATUS = "Status"
"""Under this name a server's own word about a message is found, for example 503."""
DESCRIPTION = "Description"
NO_RESPONDERS = b"NATS/1.0 503"
"""How the block begins that tells that nobody serves a subject."""

_VERSION = "NATS/1.0"
_LINE_ENDS = str.maketrans("\r\n", "  ")


class Told(NamedTuple):
    """What a request's headers tell who serves it."""

    remaining_s: float | None = None
    """How long the caller waits, if it says so."""
    request_id: str = ""
    traceparent: str = ""
    claim: str = ""


UNTOLD = Told()


def outgoing(remaining_s: float, claim: str = "") -> bytes:
    """Return the block of headers of a request sent from the current context."""
    milliseconds = int(remaining_s * 1000) if remaining_s > 0 else 0
    text = f"{_VERSION}\r\n{REMAINING_MS_HEADER}: {milliseconds}\r\n"
    if request := REQUEST_ID.get():
        text += f"{REQUEST_ID_HEADER}: {_clean(request)}\r\n"
    if trace := TRACEPARENT.get():
        text += f"{TRACEPARENT_HEADER}: {_clean(trace)}\r\n"
    if claim:
        text += f"{CLAIM_HEADER}: {claim}\r\n"
    return (text + "\r\n").encode()


def incoming(block: bytes) -> Told:
    """Return what `block`, a request's, tells; what `outgoing` has written is read in one step."""
    if not block:
        return UNTOLD
    found = _OUTGOING.fullmatch(block.decode("utf-8", "replace"))
    if found is None:
        return _read_told(decode(block))
    remaining_ms, request, trace, claim = found.groups("")
    return Told(int(remaining_ms) / 1000, request, trace, claim)


def _read_told(fields: Mapping[str, str]) -> Told:
    remaining_ms = fields.get(REMAINING_MS_HEADER, "")
    return Told(
        int(remaining_ms) / 1000 if _MILLISECONDS.fullmatch(remaining_ms) else None,
        fields.get(REQUEST_ID_HEADER, ""),
        fields.get(TRACEPARENT_HEADER, ""),
        fields.get(CLAIM_HEADER, ""),
    )


def encode(headers: Mapping[str, str]) -> bytes:
    """Return the block of `headers` as it goes before a message's data."""
    text = _VERSION + "\r\n"
    for name, value in headers.items():
        # nats-py's names are an enumeration, which an f-string would not write as their text.
        text += name + ": " + _clean(value) + "\r\n"
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
        if colon and (name := _name(name)):
            fields[name] = value.strip()
    return fields


def _clean(value: str) -> str:
    """Return `value` with blanks for line ends: no value can add a header or an operation."""
    return value if value.isprintable() else value.translate(_LINE_ENDS)


@lru_cache(1024)
def _name(text: str) -> str:
    """Return the name in what is before a colon; empty where it is none."""
    name = text.strip()
    return name if name.isascii() and name.isprintable() and " " not in name else ""


_MILLISECONDS = re.compile(r"[0-9]{1,12}")
# Values that a reader would have to strip are left to `decode`.
_OUTGOING = re.compile(
    rf"{re.escape(_VERSION)}\r\n{REMAINING_MS_HEADER}: ([0-9]{{1,12}})\r\n"
    + "".join(
        rf"(?:{name}: ([!-~]*)\r\n)?"
        for name in (REQUEST_ID_HEADER, TRACEPARENT_HEADER, CLAIM_HEADER)
    )
    + r"\r\n"
)
