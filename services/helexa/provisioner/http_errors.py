# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Errors of the API, all in OpenAI's envelope."""

import logging
import math
from collections.abc import Mapping

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from helexa.protocol.errors import (
    BackendError,
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    ForbiddenError,
    HelexaError,
    NeverFitsError,
    NotFoundError,
    RefusedError,
    RequestTooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
)

_log = logging.getLogger(__name__)

STATUS: Mapping[type[HelexaError], int] = {
    UnknownModelError: 404,
    NotFoundError: 404,
    NeverFitsError: 413,
    RequestTooLargeError: 413,
    BadRequestError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    ConflictError: 409,
    RefusedError: 503,
    UnavailableError: 503,
    DeadlineExceededError: 504,
    BackendError: 502,
}
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
}
CODES = {404: "not_found", 405: "method_not_allowed"}


def status_of(error: HelexaError) -> int:
    """Return the HTTP status for `error`."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def envelope(
    status: int, message: str, *, code: str | None, param: str | None = None
) -> JSONResponse:
    """Return an error as OpenAI's clients read it."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": body}, status_code=status)


async def on_helexa_error(request: Request, error: Exception) -> Response:
    """Answer a typed error."""
    if not isinstance(error, HelexaError):
        raise error
    status = status_of(error)
    _log.info(
        "api_refused",
        extra={"path": request.url.path, "status": status, "code": error.code},
    )
    answer = envelope(status, error.message, code=error.code, param=error.param)
    if status == 503 or error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 1)))
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown route or method."""
    if not isinstance(error, HTTPException):
        raise error
    code = CODES.get(error.status_code)
    message = f"{request.method} {request.url.path}: {error.detail}"
    _log.info("api_refused", extra={"path": request.url.path, "status": error.status_code})
    answer = envelope(error.status_code, message, code=code)
    answer.headers.update(error.headers or {})
    return answer


async def on_invalid(request: Request, error: Exception) -> Response:
    """Answer a body that is not what it should be, naming the first field that is wrong."""
    if not isinstance(error, ValidationError):
        raise error
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "body"
    return await on_helexa_error(request, BadRequestError(f"{where}: {first['msg']}", param=where))


async def on_defect(request: Request, error: Exception) -> Response:
    """Answer a defect without its details, which are in the log."""
    _log.error("api_failed", extra={"path": request.url.path}, exc_info=error)
    return envelope(500, "Something failed inside; the log has the details.", code="internal")
