# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Every error that crosses a process boundary.

```
HelexaError
├── BadRequestError              the caller must change the request
│   ├── MalformedError           bytes that do not decode to the expected type
│   ├── UnknownModelError        no such model in the catalogue
│   ├── ContextLengthError       the prompt is longer than the model's context
│   ├── UnsupportedError         the model cannot do what is asked (modality, tools, embeddings, …)
│   ├── RequestTooLargeError     more bytes than can travel or than is allowed
│   ├── NeverFitsError           no host could ever have the memory that is needed
│   ├── NotFoundError            the thing named does not exist, or not for this caller
│   └── ResumeUnavailableError   the part of the answer asked for is no longer kept
├── UnauthorizedError            no key, or a key that is not known
├── ForbiddenError               a known caller who may not do this
├── ConflictError                the state is not what the caller assumed
│   ├── IdentityConflictError    an id that belongs to another key
│   └── StaleCommandError        a command from a leader that has been replaced
├── RefusedError                 this target says no; another one may say yes
│   ├── BusyError                no free slot
│   ├── DrainingError            the host finishes what it has and takes nothing new
│   └── ModelNotLoadedError      the host does not have the model ready
├── UnavailableError             nobody can do it now; trying again may help
│   ├── NoRespondersError        no process serves the subject
│   ├── NoCapacityError          every host that could is full
│   ├── ModelLoadingError        the model is being loaded
│   ├── QueueFullError           the waiting line is at its bound
│   ├── RateLimitedError         this caller's part of it is at its bound
│   └── ShuttingDownError        the process is stopping
├── WorkCancelledError           whoever owned the work has ended it
├── DeadlineExceededError        no answer within the time that the caller gave
├── BackendError                 the model's runtime failed
│   ├── BackendRejectedError     the runtime calls the request bad
│   ├── ModelFailedError         the model cannot be loaded
│   └── StreamInterruptedError   an answer broke off after it had begun
└── InternalError                a defect; details are in the log, never on the wire
```

The first paragraph of each class's docstring is its default message.
"""

from typing import ClassVar

from typing_extensions import override

from helexa.protocol.messages.base import Message

Detail = str | int | float | bool


class ErrorReply(Message):
    """An error as it travels. `code` is stable; `message` is for people."""

    code: str
    message: str
    retryable: bool = False
    retry_after_s: float | None = None
    param: str | None = None
    details: dict[str, Detail] = {}


class HelexaError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_s: float | None = None,
        param: str | None = None,
        **details: Detail,
    ) -> None:
        """Keep what a caller needs to act: a sentence, when to retry, which field was wrong."""
        self.message = message or (self.__doc__ or self.code).partition("\n\n")[0]
        self.retry_after_s = retry_after_s
        self.param = param
        self.details = details
        super().__init__(self.message)

    def to_reply(self) -> ErrorReply:
        """Return this error in its wire form."""
        return ErrorReply(
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            retry_after_s=self.retry_after_s,
            param=self.param,
            details=self.details,
        )


class BadRequestError(HelexaError):
    """The request is not valid."""

    code = "bad_request"


class MalformedError(BadRequestError):
    """The message does not decode."""

    code = "malformed"


class UnknownModelError(BadRequestError):
    """There is no such model."""

    code = "model_not_found"


class ContextLengthError(BadRequestError):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


class UnsupportedError(BadRequestError):
    """The model cannot do what is asked."""

    code = "unsupported"


class RequestTooLargeError(BadRequestError):
    """The request is larger than what can travel."""

    code = "request_too_large"


class NeverFitsError(BadRequestError):
    """No host could ever have the memory that this needs."""

    code = "never_fits"


class NotFoundError(BadRequestError):
    """There is no such thing."""

    code = "not_found"


class ResumeUnavailableError(BadRequestError):
    """The part of the answer that is asked for is no longer kept."""

    code = "resume_unavailable"


class UnauthorizedError(HelexaError):
    """The key is missing or not known."""

    code = "unauthorized"


class ForbiddenError(HelexaError):
    """This caller may not do that."""

    code = "forbidden"


class ConflictError(HelexaError):
    """The state is not what the request assumes."""

    code = "conflict"


class IdentityConflictError(ConflictError):
    """The id belongs to another key."""

    code = "identity_conflict"


class StaleCommandError(ConflictError):
    """The command comes from a leader that has been replaced."""

    code = "stale_command"


class RefusedError(HelexaError):
    """The target refuses the work."""

    code = "refused"
    retryable = True


class BusyError(RefusedError):
    """There is no free slot."""

    code = "busy"


class DrainingError(RefusedError):
    """The host takes no new work."""

    code = "draining"


class ModelNotLoadedError(RefusedError):
    """The host does not have the model ready."""

    code = "model_not_loaded"


class UnavailableError(HelexaError):
    """The service is not available now."""

    code = "unavailable"
    retryable = True


class NoRespondersError(UnavailableError):
    """No process serves this now."""

    code = "no_responders"


class NoCapacityError(UnavailableError):
    """Every host that could serve this is full."""

    code = "no_capacity"


class ModelLoadingError(UnavailableError):
    """The model is being loaded."""

    code = "model_loading"


class QueueFullError(UnavailableError):
    """Too many requests are waiting."""

    code = "queue_full"


class RateLimitedError(UnavailableError):
    """Too many requests of this caller are waiting."""

    code = "rate_limit_exceeded"


class ShuttingDownError(UnavailableError):
    """The service is shutting down."""

    code = "shutting_down"


class WorkCancelledError(HelexaError):
    """cancelled by the gateway"""  # noqa: D415 - the message as it travels

    code = "cancelled"


class DeadlineExceededError(HelexaError):
    """There was no answer in time."""

    code = "deadline_exceeded"
    retryable = True


class BackendError(HelexaError):
    """The model's runtime failed."""

    code = "backend_failed"
    retryable = True


class BackendRejectedError(BackendError):
    """The model's runtime refused the request."""

    code = "backend_rejected"
    retryable = False


class ModelFailedError(BackendError):
    """The model could not be loaded."""

    code = "model_failed"


class StreamInterruptedError(BackendError):
    """The answer broke off."""

    code = "stream_interrupted"


class InternalError(HelexaError):
    """Something failed inside; the log of the service has the details."""

    code = "internal"


def _subclasses(root: type[HelexaError]) -> dict[str, type[HelexaError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _subclasses(child)
    return found


ERRORS_BY_CODE = _subclasses(HelexaError)
"""Every error class by its code."""


class UnlistedError(HelexaError):
    """An error of a newer version; it keeps its code and what it says of itself."""

    def __init__(self, reply: ErrorReply) -> None:
        """Take over what the peer said."""
        super().__init__(
            reply.message, retry_after_s=reply.retry_after_s, param=reply.param, **reply.details
        )
        self._reply = reply

    @override
    def to_reply(self) -> ErrorReply:
        """Return the peer's own words."""
        return self._reply


def from_reply(reply: ErrorReply) -> HelexaError:
    """Return the exception that `reply` stands for, of the class that the other side raised."""
    kind = ERRORS_BY_CODE.get(reply.code)
    if kind is None:
        return UnlistedError(reply)
    return kind(
        reply.message, retry_after_s=reply.retry_after_s, param=reply.param, **reply.details
    )
