# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a backend's error answers mean."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from helexa.protocol.errors import (
    BackendError,
    BackendRejectedError,
    BusyError,
    ContextLengthError,
    Detail,
    HelexaError,
    ModelLoadingError,
    UnsupportedError,
)

_log = logging.getLogger(__name__)

ERROR_MARK = b'"error"'
"""An event without it reports none."""
_LOGGED_CHARACTERS = 2048
_MESSAGE_CHARACTERS = 300
_OUR_FAULT = {
    HTTPStatus.UNAUTHORIZED: "the backend refused our key",
    HTTPStatus.FORBIDDEN: "the backend refused our key",
    HTTPStatus.NOT_FOUND: "the backend does not know this model or route",
    HTTPStatus.REQUEST_TIMEOUT: "the backend gave up waiting for the request",
}
_TOO_LONG = re.compile(
    r"exceed_context_size|context_length_exceeded|maximum (context|model|sequence) length"
    r"|context (length|window|size)|(prompt|input|inputs?) (is|are) (too long|longer)"
    r"|input is too large to process|max_model_len|too many tokens",
    re.IGNORECASE,
)
_NOT_ABLE = re.compile(
    r"not_supported_error|(image|audio|video) input is not supported", re.IGNORECASE
)
_SECRETS = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE), "[address]"),
    (re.compile(r"\b[\w.-]*[\w-]:\d{2,5}\b"), "[address]"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"), "[address]"),
    (
        re.compile(
            r"\b([a-z0-9-]+\.)+(local|internal|intra|lan|corp|svc|com|net|org|io|ai|dev|cloud)\b",
            re.IGNORECASE,
        ),
        "[host]",
    ),
    (re.compile(r"(?<![\w.])[~.]{0,2}(/[\w.@+-]+){2,}/?"), "[path]"),
    (re.compile(r"\b[A-Za-z]:\\\S+"), "[path]"),
    (re.compile(r"\b(sk|hf|pk|key)[-_][\w-]{8,}"), "[key]"),
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a backend says of a failure, in whichever of the common forms."""

    message: str
    code: str
    status: int | None
    """An HTTP status inside the body, as errors in mid-stream have it."""
    details: Mapping[str, Detail]

    @property
    def is_too_long(self) -> bool:
        """Whether the prompt does not fit the context."""
        return bool(_TOO_LONG.search(f"{self.code} {self.message}"))

    @property
    def is_unsupported(self) -> bool:
        """Whether the model lacks what was asked for."""
        return bool(_NOT_ABLE.search(f"{self.code} {self.message}"))


def cleaned(text: str) -> str:
    """Return one line of at most 300 characters without addresses, hosts, paths or keys."""
    line = " ".join(text.split())
    for pattern, instead in _SECRETS:
        line = pattern.sub(instead, line)
    return line[:_MESSAGE_CHARACTERS].rstrip()


def read_complaint(body: bytes) -> Complaint | None:
    """Return the error that a JSON body holds, `None` if it holds none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    error = found.get("error")
    if error is None and found.get("object") == "error":
        error = found
    if error is None and "detail" in found:
        error = {"message": found["detail"]}
    if isinstance(error, str):
        error = {"message": error}
    return _complaint(error) if isinstance(error, dict) else None


def _complaint(error: Mapping[str, object]) -> Complaint:
    message, code, kind = error.get("message"), error.get("code"), error.get("type")
    text = message if isinstance(message, str) else json.dumps(message or "")
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    name = code if isinstance(code, str) else kind
    details: dict[str, Detail] = {}
    for theirs, ours in (("n_prompt_tokens", "prompt_tokens"), ("n_ctx", "context_tokens")):
        value = error.get(theirs)
        if isinstance(value, int):
            details[ours] = value
    return Complaint(text, name if isinstance(name, str) else "", status, details)


def error_of_event(event: bytes) -> HelexaError | None:
    """Return the error that an event of a stream reports, `None` for any other event."""
    if ERROR_MARK not in event:
        return None
    complaint = read_complaint(event)
    if complaint is None:
        return None
    return _error(complaint.status or HTTPStatus.INTERNAL_SERVER_ERROR, complaint, None)


def error_of_response(status: int, headers: Mapping[str, str], body: bytes) -> HelexaError:
    """Return the error that a response stands for which is not the answer asked for.

    Its body goes to the log, at most 2,048 characters of it; below 500 only for debugging, as it
    may repeat a part of the request.
    """
    level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.DEBUG
    text = body[:_LOGGED_CHARACTERS].decode("utf-8", "replace")
    _log.log(level, "backend_refused", extra={"status": status, "body": text})
    complaint = read_complaint(body) or Complaint("", "", None, {})
    return _error(status, complaint, _seconds(headers.get("retry-after")))


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def _error(status: int, complaint: Complaint, retry_after_s: float | None) -> HelexaError:
    message = cleaned(complaint.message)
    if status in _OUR_FAULT:
        return BackendError(_OUR_FAULT[HTTPStatus(status)])
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return BusyError("the backend is busy", retry_after_s=retry_after_s)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and "loading" in message.lower():
        return ModelLoadingError(retry_after_s=retry_after_s)
    return _refusal(status, complaint) or _failure(status, message, complaint.code)


def _refusal(status: int, complaint: Complaint) -> HelexaError | None:
    """The error where the request is at fault; some servers answer 500 to those too."""
    message = cleaned(complaint.message)
    if complaint.is_too_long:
        error = ContextLengthError(message)
        error.details.update(complaint.details)
        return error
    if status == HTTPStatus.NOT_IMPLEMENTED or complaint.is_unsupported:
        return UnsupportedError(message)
    if 400 <= status < 500:
        text = message or "the backend refused the request"
        return BackendRejectedError(text, status=status, backend_code=complaint.code)
    return None


def _failure(status: int, message: str, code: str) -> BackendError:
    reason = f": {message}" if message else ""
    return BackendError(f"the backend failed ({status}){reason}", status=status, backend_code=code)
