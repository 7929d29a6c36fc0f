# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a neuron certifies about a request that it has served."""

from helexa.protocol.codec import Signable, pack_canonical, unpack_canonical
from helexa.protocol.errors import MalformedError
from helexa.protocol.messages.base import Message, Record

USAGE_DOMAIN = b"helexa-usage-v1\0"
"""Goes before the bytes that are signed, so that a signature is good for nothing else."""


class UsageRecord(Record):
    """Counts of one attempt of one request. Integers and text only: it is signed.

    An attempt claims its own work: the sum over a request's attempts is what its answer shows.
    """

    version: int = 1
    request_id: str
    attempt: int
    neuron_id: str
    portal: str
    account: str
    model: str
    operation: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    counted: str
    """`backend` or `frames`, as in `TokenUsage`."""
    events: int
    """Events published."""
    output_bytes: int
    output_sha256: str
    """Over the published events of the attempt, in order."""
    outcome: str
    """`done`, `cancelled` or the code of an error."""
    first_token_ms: int
    """-1 when there was none."""
    total_ms: int
    prefix_tokens: int = 0
    """Tokens of earlier attempts that this one had to read again; in no other count."""


class SignedUsage(Message):
    """A usage record and the neuron's signature over its canonical bytes."""

    record: bytes
    key: str
    """The neuron's public nkey."""
    signature: bytes


SignedFields = dict[str, bytes | str]
"""A `SignedUsage` as it is packed: each request has one, of which nothing needs a check."""


class UsageBatch(Message):
    """Up to 256 signed records in one message."""

    records: tuple[SignedUsage, ...]


def usage_bytes(fields: dict[str, Signable]) -> bytes:
    """Return the canonical bytes of a `UsageRecord`, to be signed after `USAGE_DOMAIN`.

    Args:
        fields: Of the record; without `prefix_tokens` where there are none, as most attempts begin
            their answer.
    """
    return pack_canonical(fields)


def read_usage(data: bytes) -> UsageRecord:
    """Return the record in `data`.

    Raises:
        MalformedError: not the canonical encoding of a usage record.
    """
    fields = unpack_canonical(data)
    if not isinstance(fields, dict):
        raise MalformedError("a usage record is a map")
    return UsageRecord.model_validate(fields)
