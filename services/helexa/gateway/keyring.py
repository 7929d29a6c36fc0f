# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The API keys that the site's portals have made, beside those from settings."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

from helexa.bus.buckets import Bucket, Mirror
from helexa.bus.client import Bus
from helexa.gateway.authority import Caller, Claim, SettingsAuthority
from helexa.protocol import resources
from helexa.protocol.errors import HelexaError, UnauthorizedError, UnavailableError
from helexa.protocol.messages.accounts import KeyGrant
from helexa.protocol.messages.execution import TokenUsage
from helexa.protocol.naming import digest_of

SHORTEST_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Known:
    """A key that portals know."""

    caller: Caller
    expires_s: float | None
    """Unix time."""
    end: str
    """Why it is good for nothing; empty if it is good."""

    @classmethod
    def of(cls, digest: str, grant: KeyGrant) -> "Known":
        """Return what the record under `digest` says."""
        caller = Caller(
            account=grant.account,
            portal=grant.portal,
            yields=grant.yields,
            may_claim_priority=grant.may_claim_priority,
            key=digest,
            key_id=grant.key_id,
            budget=grant.budget,
            scopes=frozenset(grant.scopes),
            models=None if grant.models is None else frozenset(grant.models),
            requests_per_minute=grant.requests_per_minute,
            tokens_per_minute=grant.tokens_per_minute,
        )
        expires_s = None if grant.expires_ms is None else grant.expires_ms / 1000
        return cls(caller, expires_s, _end_of(grant))

    def check(self, now_s: float) -> Caller:
        """Return whose key it is, if it is good at this Unix time.

        Raises:
            UnauthorizedError: it is not.
        """
        if self.end:
            raise UnauthorizedError(self.end)
        if self.expires_s is not None and now_s >= self.expires_s:
            raise UnauthorizedError("The API key has expired.")
        return self.caller


class Keyring:
    """Follows the bucket of keys, so that to know one takes no more than to look it up."""

    def __init__(self, bus: Bus, *, wait_s: float) -> None:
        """Follow from `run` on; while keys cannot be read, whoever has one waits `wait_s`."""
        self._bus = bus
        self._wait_s = max(wait_s, SHORTEST_WAIT_S)
        self._mirror = Mirror(Bucket(bus, resources.KEYS, KeyGrant), checks=True)
        self._mirror.on_change(self._take)
        self._known: dict[str, Known] = {}

    def __len__(self) -> int:
        """Return how many keys are known, good or not."""
        return len(self._known)

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._mirror.run()

    async def find(self, digest: str) -> Caller | None:
        """Return whose key this is, `None` if no portal knows it.

        Raises:
            UnauthorizedError: it is good for nothing any more.
            UnavailableError: the keys cannot be read now.
        """
        known = self._known.get(digest) if self._mirror.is_fresh else await self._ask(digest)
        return None if known is None else known.check(time.time())

    async def _ask(self, digest: str) -> Known | None:
        """Return what the servers know: the copy may lack what has just been revoked."""
        try:
            async with asyncio.timeout(self._wait_s):
                if self._bus.is_connected:
                    with contextlib.suppress(HelexaError):
                        entry = await self._mirror.bucket.get(digest)
                        return Known.of(digest, entry.value) if entry else None
                await self._mirror.wait_fresh()
        except TimeoutError:
            raise UnavailableError("API keys cannot be checked now.", retry_after_s=2) from None
        return self._known.get(digest)

    def _take(self, digest: str, grant: KeyGrant | None) -> None:
        if grant is None:
            self._known.pop(digest, None)
        else:
            self._known[digest] = Known.of(digest, grant)


class SiteAuthority:
    """Keys from settings and those that portals have made; holds are the former's."""

    def __init__(self, settings: SettingsAuthority, keyring: Keyring) -> None:
        """Look in `settings` first, which are at hand at any time."""
        self._settings = settings
        self._keyring = keyring

    async def authorise(self, key: str | None) -> Caller:
        """Return whose key this is. Where the gateway is open, strangers come in without a key.

        A key that is good for nothing any more is refused there too: its bearer would not learn it.
        """
        if key is not None:
            digest = digest_of(key)
            caller = self._settings.find(digest) or await self._keyring.find(digest)
            if caller is not None:
                return caller
        return self._settings.let_in(key, others_have_keys=len(self._keyring) > 0)

    async def hold(self, caller: Caller, claim: Claim) -> None:
        """Set aside what a request may cost."""
        await self._settings.hold(caller, claim)

    async def settle(self, caller: Caller, claim: Claim, usage: TokenUsage | None) -> None:
        """Close the hold."""
        await self._settings.settle(caller, claim, usage)


def _end_of(grant: KeyGrant) -> str:
    if grant.revoked_ms is not None:
        return "The API key has been revoked."
    return "The account of this API key is suspended." if grant.suspended else ""
