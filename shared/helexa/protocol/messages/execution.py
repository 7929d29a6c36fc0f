# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Work for a neuron: start it, stop it, ask again for what was missed."""

from typing import Annotated, Literal

from msgspec import Meta

from helexa.protocol.messages.base import HotMessage, Message
from helexa.protocol.messages.models import ModelId


class Operation:
    """The known operations; each is one route of a backend."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


class ExecuteRequest(HotMessage, frozen=True, kw_only=True):
    """Run one request and publish its frames on the token subject of (home, this neuron, id)."""

    request_id: str
    home: str
    """The gateway whose token subject carries the frames."""
    owner: str
    """The gateway that may cancel; the home until another one attaches."""
    attempt: Annotated[int, Meta(ge=1)] = 1
    first_seq: Annotated[int, Meta(ge=0)] = 0
    """Number of this attempt's first frame: numbers run on over attempts."""
    first_event: Annotated[int, Meta(ge=0)] = 0
    """Number of this attempt's first event."""
    decision_id: str = ""
    model: ModelId
    operation: str
    """An `Operation`."""
    public_id: str
    """The `id` that the answer's JSON carries, for example `chatcmpl-…`."""
    body: bytes
    """The JSON body for the backend. With `stream`, generating operations ask in it for
    `stream: true` and `stream_options.include_usage`; without, it holds neither."""
    stream: bool = True
    """False: the client wants a whole answer. It comes as `BODY` frames from a backend that stops
    when it is left, else as the `DATA` frames of a stream."""
    show_usage: bool = False
    """Keep the usage event in the stream (the client asked for it)."""
    idle_timeout_s: float = 120.0
    """Longest silence of the backend, from the first token on."""
    first_token_timeout_s: float = 600.0
    """Longest wait for the first token."""
    outlives_owner: bool = False
    """Go on when the owner falls silent (background work)."""
    portal: str = "default"
    """Which portal's books the usage goes to."""
    account: str = ""
    """Digest of the key that asked."""
    continues: str | None = None
    """The text that earlier attempts have given, to go on from; empty where they got no further
    than the event that names the role. `None`: begin."""
    prefix_tokens: Annotated[int, Meta(ge=0)] = 0
    """Tokens of `continues`, as they were streamed."""
    prefix_digests: bytes = b""
    """Of the prompt's prefixes, as `digest_prefixes` makes them, for the neuron to report."""
    created: int | None = None
    """The `created` that a continued answer's events carry, Unix time in seconds."""


class ExecuteReply(HotMessage, frozen=True, kw_only=True):
    """The neuron has taken the request; a refusal comes as a `RefusedError`."""

    neuron_id: str
    slots_free: int = 0


class CancelRequest(Message):
    """Stop a request. Only its owner may."""

    request_id: str
    owner: str
    attempt: int
    reason: str = "client_gone"


class Cancelled(Message):
    """Whether there was something to stop."""

    state: Literal["cancelled", "finished", "unknown"]


class AttachRequest(Message):
    """Another gateway takes over the care for a running request."""

    request_id: str
    owner: str


class Attached(Message):
    """What the new owner has taken over."""

    state: Literal["running", "finished", "unknown"]


class ResendRequest(Message):
    """Publish the frames from `from_seq` on once more."""

    request_id: str
    attempt: int
    from_seq: int
    to_seq: int | None = None
    """Up to and without this number; `None`: all there are."""


class Resent(Message):
    """The frames asked for, encoded as on the token subject; empty when none is kept."""

    frames: tuple[bytes, ...] = ()
    complete: bool = True
    """False: frames before the first one returned are gone."""


class TokenUsage(Message):
    """Tokens of a request, in OpenAI's terms. `None` means that the backend does not tell."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    counted: Literal["backend", "frames"] = "backend"
    """`frames`: the backend gave no count (it was cancelled or broke), published events were."""


class Timings(Message):
    """Durations on the neuron, in seconds."""

    queued_s: float = 0.0
    first_token_s: float | None = None
    total_s: float = 0.0
