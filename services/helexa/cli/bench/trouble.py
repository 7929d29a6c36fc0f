# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Why a request has no answer, in the words of who said so."""

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

BUSY = (429, 503, 529)
"""Statuses by which an endpoint says that it has no room now."""
_LONGEST_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong with one request."""

    code: str
    """By which alike ones are counted: a status and the endpoint's own code, or a word of ours."""
    message: str
    is_refusal: bool = False
    """Whether the endpoint has no room, as opposed to a defect."""
    status: int | None = None
    """The HTTP status, where that says it."""


CLOSED = Trouble("connection_closed", "the connection was closed before the answer was whole")
CUT = Trouble("stream_cut", "the stream ended without its end mark")
SILENT = Trouble("timeout", "nothing came for longer than --timeout")
NO_CONNECTION = Trouble(
    "no_connection", "all of the connections that --concurrency allows were busy until --timeout"
)
NOT_HTTP = Trouble("not_http", "what came is not HTTP")
NOT_AN_ANSWER = Trouble("not_an_answer", "what came with status 200 is no answer of a model")


def of_status(status: int, body: bytes) -> Trouble:
    """Return what a response says that is no success."""
    error = _error_of(body)
    code = f"{status} {error['code']}" if error.get("code") else str(status)
    message = str(error.get("message") or f"status {status}")
    return Trouble(code, _short(message), is_refusal=status in BUSY, status=status)


def of_event(data: bytes, *, has_begun: bool) -> Trouble | None:
    """Return what an event of a stream says; `None` if it is no error.

    A stream that has waited may say in its first event that there is no room.
    """
    error = _error_of(data)
    if not error:
        return None
    code = str(error.get("code") or error.get("type") or "error")
    message = _short(str(error.get("message") or code))
    return Trouble(code, message, is_refusal=not has_begun and bool(error.get("retry_after")))


def of_connecting(error: OSError) -> Trouble:
    """Return why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble("certificate_refused", error.verify_message)
    if isinstance(error, ssl.SSLError):
        return Trouble("tls_failed", _short(error.reason or str(error)))
    if isinstance(error, socket.gaierror):
        return Trouble("unknown_host", _short(error.strerror or str(error)))
    if isinstance(error, ConnectionRefusedError):
        return Trouble("connection_refused", "Connection refused")
    if isinstance(error, TimeoutError):
        return Trouble("connect_timeout", "no connection in time")
    return Trouble("connection_failed", _short(error.strerror or str(error)))


def _error_of(body: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict):
        return error
    return {"message": str(error)} if error else {}


def _short(message: str) -> str:
    return " ".join(message.split())[:_LONGEST_MESSAGE]
