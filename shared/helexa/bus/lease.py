# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Leadership among replicas, by a key that expires."""

import asyncio
import contextlib
import logging

from helexa.bus.buckets import Bucket
from helexa.bus.client import Bus
from helexa.protocol import resources
from helexa.protocol.errors import ConflictError, HelexaError
from helexa.protocol.messages.base import Message

_log = logging.getLogger(__name__)

RENEW_S = 2.0
RETRY_S = 1.0


class Holder(Message):
    """Who holds a lease."""

    instance: str


class Lease:
    """One replica's claim to lead.

    A lease is a hint, not a fence: two replicas can believe to lead for a moment. Whatever a leader
    orders carries `fence`, which rises with each holder, and the receiver refuses a lower one.
    """

    def __init__(
        self, bus: Bus, name: str, instance: str, *, bucket: resources.Bucket = resources.LEASES
    ) -> None:
        """Name the lease, the claimant and where leases are kept; `run` claims it."""
        self.name = name
        self.instance = instance
        self._bucket = Bucket(bus, bucket, Holder)
        self._revision: int | None = None
        self._changed = asyncio.Condition()
        self._expires_at = 0.0

    @property
    def is_held(self) -> bool:
        """Whether this replica leads now."""
        return self._revision is not None and asyncio.get_running_loop().time() < self._expires_at

    @property
    def fence(self) -> int:
        """The number that orders of this leader carry; 0 when it does not lead."""
        return self._revision or 0

    async def wait_held(self) -> None:
        """Return when this replica leads."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_held)

    async def wait_lost(self) -> None:
        """Return when this replica does not lead, or not any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.is_held)

    async def run(self) -> None:
        """Claim the lease, renew it, claim it again when it is lost; give it up when cancelled."""
        try:
            while True:
                await self._claim_or_renew()
                # A key that expires tells nobody, so those who wait must look again.
                await asyncio.sleep(RENEW_S if self.is_held else RETRY_S)
        finally:
            await self._release()

    async def _claim_or_renew(self) -> None:
        asked_at = asyncio.get_running_loop().time()
        before = self.is_held
        try:
            self._revision = await self._bucket.replace(
                self.name, Holder(instance=self.instance), self._revision
            )
            self._expires_at = asked_at + (self._bucket.declared.ttl_s or 0)
        except ConflictError:
            self._revision = await self._own_revision()
        except HelexaError as error:
            _log.debug("lease_unreachable", extra={"lease": self.name, "error": error.message})
        if self.is_held != before:
            _log.info("lease_changed", extra={"lease": self.name, "held": self.is_held})
            async with self._changed:
                self._changed.notify_all()

    async def _own_revision(self) -> int | None:
        """Return the key's revision if it is ours all the same: a renewal's answer may be lost."""
        try:
            entry = await self._bucket.get(self.name)
        except HelexaError:
            return None
        return entry.revision if entry and entry.value.instance == self.instance else None

    async def _release(self) -> None:
        if self.is_held and self._bucket.bus.is_connected:
            self._revision = None
            with contextlib.suppress(HelexaError):
                await self._bucket.delete(self.name)
