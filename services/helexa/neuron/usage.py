# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Signed counts on their way to the portals' books: in batches, repeated until they are stored."""

import asyncio
import contextlib
import logging
import random
from collections import defaultdict
from collections.abc import Sequence

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from helexa.bus.client import Bus
from helexa.neuron.ending import Ending
from helexa.neuron.outbox import Outbox
from helexa.protocol import subjects
from helexa.protocol.codec import Signable, pack_plain
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.messages.usage import (
    USAGE_DOMAIN,
    SignedFields,
    usage_bytes,
)
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import subject_of
from helexa.site.keys import Identity

_log = logging.getLogger(__name__)

BATCH_RECORDS = 256
BATCH_WAIT_S = 0.05
MAX_WAITING = 65_536
"""Records kept while they cannot be stored, about 50 MB; the oldest that wait go first."""
ACK_WITHIN_S = 5.0
FIRST_PAUSE_S = 0.5
"""Longest wait before what could not be stored is sent once more."""


def usage_record(request: ExecuteRequest, outbox: Outbox, ending: Ending, neuron_id: str) -> bytes:
    """Return what the neuron certifies about an attempt that has ended: a `UsageRecord`."""
    usage, first_s = ending.usage, ending.first_token_s
    fields: dict[str, Signable] = {
        "version": 1,
        "request_id": request.request_id,
        "attempt": request.attempt,
        "neuron_id": neuron_id,
        "portal": request.portal,
        "account": request.account,
        "model": str(request.model),
        "operation": request.operation,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens or 0,
        "reasoning_tokens": usage.reasoning_tokens or 0,
        "counted": usage.counted,
        "events": outbox.events,
        "output_bytes": outbox.output_bytes,
        "output_sha256": outbox.output_sha256,
        "outcome": ending.outcome,
        "first_token_ms": -1 if first_s is None else round(first_s * 1000),
        "total_ms": round(ending.total_s * 1000),
    }
    if request.prefix_tokens:
        fields["prefix_tokens"] = request.prefix_tokens
    return usage_bytes(fields)


def sign_usage(record: bytes, identity: Identity) -> SignedFields:
    """Return `record` with the neuron's signature."""
    signature = identity.sign(USAGE_DOMAIN + record)
    return {"record": record, "key": identity.public, "signature": signature}


class UsageSender:
    """Sends signed records of one site to its portals."""

    def __init__(self, bus: Bus, neuron_id: str, *, max_waiting: int = MAX_WAITING) -> None:
        """Send as `neuron_id`; `run` does it."""
        self.dropped = 0
        """Records given up because too many waited; the terminal frames still hold them."""
        self._bus = bus
        self._neuron = encode_token(neuron_id)
        self._max_waiting = max_waiting
        self.waiting = 0
        """Records that are not known to be stored."""
        self._waiting: defaultdict[str, list[SignedFields]] = defaultdict(list)
        """By portal, without what is being sent."""
        self._has_waiting = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_hurried = asyncio.Event()

    def add(self, portal: str, signed: SignedFields) -> None:
        """Send `signed` soon."""
        records = self._waiting[portal]
        records.append(signed)
        self.waiting += 1
        self._has_waiting.set()
        if self.waiting == 1:
            self._is_empty.clear()
        if len(records) >= BATCH_RECORDS:
            self._is_hurried.set()
        if self.waiting > self._max_waiting:
            longest = max(self._waiting.values(), key=len)
            del longest[0]
            self.waiting -= 1
            self.dropped += 1

    async def run(self) -> None:
        """Send what is added until cancelled."""
        while True:
            await self._has_waiting.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_hurried.wait(), BATCH_WAIT_S)
            self._is_hurried.clear()
            self._has_waiting.clear()
            for portal in [name for name, records in self._waiting.items() if records]:
                await self._send_all(portal)
            if not self.waiting:
                self._is_empty.set()

    async def flush(self, within_s: float) -> bool:
        """Return whether everything is stored, after at most `within_s`."""
        self._is_hurried.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_empty.wait(), within_s)
        return self._is_empty.is_set()

    async def _send_all(self, portal: str) -> None:
        while records := self._waiting[portal]:
            batch, self._waiting[portal] = records[:BATCH_RECORDS], records[BATCH_RECORDS:]
            await self._send(portal, batch)
            self.waiting -= len(batch)

    async def _send(self, portal: str, batch: Sequence[SignedFields]) -> None:
        """Send a `UsageBatch` until it is stored."""
        subject = subject_of(
            subjects.USAGE.subject, portal=encode_token(portal), neuron=self._neuron
        )
        data = pack_plain({"records": batch})
        try:
            await self._bus.publish_stored(subject, data, deadline_s=ACK_WITHIN_S)
        except HelexaError:
            _log.warning("usage_waits", extra={"portal": portal})
        else:
            return
        await asyncio.sleep(random.uniform(0, FIRST_PAUSE_S))  # noqa: S311 - no secret
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(HelexaError),
            wait=wait_random_exponential(multiplier=2 * FIRST_PAUSE_S, max=10),
        )
        async for attempt in retrying:
            with attempt:
                await self._bus.publish_stored(subject, data, deadline_s=ACK_WITHIN_S)
