# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Errors as OpenAI's clients expect them: status, body, retry headers, event in a stream."""

import json
import math
from dataclasses import dataclass

from helexa.protocol import errors
from helexa.protocol.errors import HelexaError

MAX_RETRY_AFTER_S = 120
"""Clients give up at once when told to wait longer."""
DEFAULT_RETRY_AFTER_S = 2.0
WORTH_RETRYING = (429, 502, 503, 504)
"""Statuses after which the same request may succeed; each of them says when to try."""

INVALID = "invalid_request_error"
SERVER = "server_error"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One error on its way out."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]


_BY_CLASS: tuple[tuple[type[HelexaError], int, str], ...] = (
    (errors.UnknownModelError, 404, INVALID),
    (errors.NotFoundError, 404, INVALID),
    (errors.ResumeUnavailableError, 410, INVALID),
    (errors.RequestTooLargeError, 413, INVALID),
    (errors.NeverFitsError, 413, INVALID),
    (errors.BadRequestError, 400, INVALID),
    (errors.UnauthorizedError, 401, "authentication_error"),
    (errors.ForbiddenError, 403, "permission_error"),
    (errors.ConflictError, 409, INVALID),
    (errors.RateLimitedError, 429, "rate_limit_error"),
    (errors.RefusedError, 503, SERVER),
    (errors.UnavailableError, 503, SERVER),
    (errors.DeadlineExceededError, 504, SERVER),
    (errors.BackendRejectedError, 400, INVALID),
    (errors.BackendError, 502, SERVER),
)
_CODES = {"unauthorized": "invalid_api_key", "malformed": "bad_request"}
_PASSED_STATUS = (400, 413, 422)
"""Statuses of a model's runtime that are the caller's fault; others become 400."""


def status_of(error: HelexaError) -> int:
    """Return the HTTP status of `error`."""
    if isinstance(error, errors.BackendRejectedError):
        passed = error.details.get("status")
        return passed if isinstance(passed, int) and passed in _PASSED_STATUS else 400
    return _row(error)[0]


def retry_after_s(error: HelexaError) -> int | None:
    """Return the whole seconds after which trying again may help, `None` where it cannot."""
    if status_of(error) not in WORTH_RETRYING:
        return None
    asked = error.retry_after_s or DEFAULT_RETRY_AFTER_S
    return min(MAX_RETRY_AFTER_S, max(1, math.ceil(asked)))


def envelope(error: HelexaError) -> Envelope:
    """Return the answer that `error` is."""
    status = status_of(error)
    wait = retry_after_s(error)
    headers = [(b"x-should-retry", b"false" if wait is None else b"true")]
    if wait is not None:
        headers.append((b"retry-after", str(wait).encode()))
    body = json.dumps({"error": _fields(error)}).encode()
    return Envelope(status, body, headers)


def error_event(error: HelexaError, *, resume: str | None = None) -> bytes:
    """Return the event that ends a stream in place of `[DONE]`.

    `resume` is the path where another gateway has the rest of an answer that goes on.
    """
    fields = _fields(error) | {"retry_after": retry_after_s(error)}
    if resume is not None:
        fields["resume"] = resume
    return b"data: " + json.dumps({"error": fields}).encode() + b"\n\n"


def _fields(error: HelexaError) -> dict[str, object]:
    reply = error.to_reply()
    reason = reply.details.get("reason")
    code = reason if isinstance(reason, str) else _CODES.get(reply.code, reply.code)
    return {
        "message": reply.message,
        "type": _row(error)[1],
        "param": reply.param,
        "code": code,
    }


def _row(error: HelexaError) -> tuple[int, str]:
    for kind, status, name in _BY_CLASS:
        if isinstance(error, kind):
            return status, name
    return (503 if error.to_reply().retryable else 500), SERVER
