# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A request that was understood: what it asks for, and the body for the model's runtime."""

from hashlib import blake2b

import msgspec

from helexa.gateway.fields import Fields, decode, encode
from helexa.gateway.priority import Priority, asked_priority
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import WorkloadClass
from helexa.protocol.messages.routing import UserHints
from helexa.protocol.prefixes import SHORTEST_BYTES, digest_prefixes

NO_HINTS = UserHints()
_STREAM = b',"stream":true,"stream_options":{"include_usage":true}'


class Customs(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway adds to a request."""

    default_max_tokens: int | None = None
    bulk_prompt_tokens: int = 16_384
    priority: str = ""
    """The caller's priority header."""
    may_claim_priority: bool = True
    """Whether the caller may go before others."""
    session: str | None = None
    """The caller's session header."""

    def asked(self, tier: object) -> Priority | None:
        """Return the class that is asked for, `None` where the gateway chooses.

        Raises:
            BadRequestError: it is not a class.
        """
        if not self.priority and tier is None:
            return None
        return asked_priority(self.priority, tier, may_claim=self.may_claim_priority)

    def chat_workload(self, asked: Priority | None, prompt_tokens: int) -> str:
        """Return the workload of a chat in text."""
        if asked is None:
            is_bulk = prompt_tokens > self.bulk_prompt_tokens
        else:
            is_bulk = asked is Priority.BULK
        return WorkloadClass.CHAT_BULK if is_bulk else WorkloadClass.CHAT_INTERACTIVE


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was understood."""

    operation: str
    model: str | None
    """As the caller named it."""
    settings: bytes
    """The runtime's other fields but the prompt, as `members` makes them."""
    prompt: bytes = b""
    """The prompt's own, which is the last: what is appended to it leaves the beginning alone."""
    prefix_digests: bytes = b""
    """Of the prompt."""
    dimensions: object = None
    """The length that a vector is to have, `None` where it is left to the model."""
    stream: bool = False
    show_usage: bool = False
    needs: tuple[str, ...] = ()
    """`Workload` values."""
    workload: str = WorkloadClass.CHAT_INTERACTIVE
    priority: Priority = Priority.DEFAULT
    show_tier: bool = False
    """Whether the answer says under which of OpenAI's tiers it was made."""
    prompt_tokens: int = 0
    max_tokens: int | None = None
    choices: int = 1
    beginning: bytes | None = None
    """What the prompt begins with, if others may begin alike."""
    hints: UserHints = NO_HINTS

    @property
    def prefix_hash(self) -> str | None:
        """Digest of what the prompt begins with."""
        if self.beginning is None:
            return None
        return blake2b(self.beginning, digest_size=16).hexdigest()

    @property
    def fields(self) -> Fields:
        """The runtime's fields. They are parsed again: few requests need a second look."""
        parsed = decode(b"{%b}" % (self.settings + self.prompt)[1:])
        return parsed if isinstance(parsed, dict) else {}

    def render(self, model: str, *, stream: bool) -> bytes:
        """Return the body for the runtime of `model`.

        With `stream` it is asked for events, whatever the client gets.
        """
        asked = _STREAM if stream and self.operation != Operation.EMBEDDING else b""
        return b'{"model":%b%b%b%b}' % (encode(model), self.settings, asked, self.prompt)


def members(value: object) -> bytes:
    """Return the members of an object in JSON, with a comma before each."""
    made = encode(value)[1:-1]
    return b"," + made if made else b""


def digests(prompt: bytes, tools: object) -> bytes:
    """Return the digests of the prefixes of an encoded prompt, which its tools go before."""
    if len(prompt) < SHORTEST_BYTES:
        return b""
    return digest_prefixes(prompt, encode(tools) if tools else b"")


def hints_for(session: str | None) -> UserHints:
    """Return the hints of a caller who says no more than which conversation this is."""
    return UserHints(session=session) if session else NO_HINTS


def priority_of(asked: Priority | None, workload: str) -> Priority:
    """Return the class of a request."""
    if asked is not None:
        return asked
    return Priority.BULK if workload == WorkloadClass.CHAT_BULK else Priority.DEFAULT
