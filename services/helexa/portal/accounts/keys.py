# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The API keys of users: made, listed, limited, revoked."""

import time
from collections.abc import Callable
from typing import NamedTuple

from helexa.bus.buckets import Bucket, Entry, Mirror
from helexa.bus.client import Bus
from helexa.portal.accounts.amending import amend
from helexa.portal.accounts.audit import Audit
from helexa.portal.accounts.minting import hint_of, mint_key, new_id
from helexa.portal.accounts.terms import MAX_KEPT, MAX_KEYS, KeyTerms, grant_of, revoked, with_terms
from helexa.protocol import resources
from helexa.protocol.errors import ForbiddenError, NotFoundError, UnavailableError
from helexa.protocol.messages.accounts import KeyGrant, User
from helexa.protocol.messages.events import EventType


class NewKey(NamedTuple):
    """A key that has just been made."""

    secret: str
    """Kept nowhere: it can be shown now and never again."""
    grant: KeyGrant


class ApiKeys:
    """The API keys of a site. `run` must run; until it has caught up, nothing can be found."""

    def __init__(self, bus: Bus, audit: Audit) -> None:
        """Keep keys in the site's bucket, and tell `audit` of changes."""
        self._mirror = Mirror(Bucket(bus, resources.KEYS, KeyGrant))
        self._mirror.on_change(self._note)
        self._audit = audit
        self._digests: dict[str, dict[str, str]] = {}
        """Of each account: the digest of each key id."""
        self._places: dict[str, tuple[str, str]] = {}
        """Of each digest: the account and the key id."""

    @property
    def is_fresh(self) -> bool:
        """Whether all keys are known."""
        return self._mirror.is_fresh

    async def run(self) -> None:
        """Follow what other replicas do, until cancelled."""
        await self._mirror.run()

    def list(self, account: str) -> list[KeyGrant]:
        """Return the keys of an account, the newest first; those that are revoked too.

        Raises:
            UnavailableError: they are not known yet.
        """
        self._check_fresh()
        entries = self._mirror.entries
        found = [entries[digest].value for digest in self._digests.get(account, {}).values()]
        return sorted(found, key=lambda each: (each.created_ms, each.key_id), reverse=True)

    async def create(self, user: User, terms: KeyTerms) -> NewKey:
        """Make a key for `user`. Each gateway knows it as soon as it has been told.

        Raises:
            BadRequestError: the terms mean nothing.
            ForbiddenError: the user has as many keys as anybody may.
            UnavailableError: keys cannot be kept now.
        """
        now_ms = _now_ms()
        terms.check(now_ms)
        await self._make_room(user.user_id)
        minted = mint_key()
        grant = grant_of(user, new_id("key"), hint_of(minted.secret), terms, now_ms)
        revision = await self._mirror.bucket.replace(minted.digest, grant, None)
        self._mirror.learn(minted.digest, Entry(grant, revision))
        await self._audit.tell(EventType.KEY_CREATED, account=user.user_id, key_id=grant.key_id)
        return NewKey(minted.secret, grant)

    async def change(
        self, account: str, key_id: str, terms: KeyTerms, *, actor: str | None = None
    ) -> KeyGrant:
        """Give a key other terms; its secret stays.

        Raises:
            BadRequestError: the terms mean nothing.
            NotFoundError: the account has no such key, or it is revoked.
            UnavailableError: keys cannot be kept now.
        """
        terms.check(_now_ms())

        def rule(grant: KeyGrant) -> KeyGrant:
            if grant.revoked_ms is not None:
                raise _unknown(key_id)
            return with_terms(grant, terms)

        changed = await self._amend(account, key_id, rule)
        await self._audit.tell(EventType.KEY_CHANGED, account=account, actor=actor, key_id=key_id)
        return changed

    async def revoke(self, account: str, key_id: str, *, actor: str | None = None) -> KeyGrant:
        """End a key for ever. Its record stays, so that what it did can be told.

        Raises:
            NotFoundError: the account has no such key.
            UnavailableError: keys cannot be kept now.
        """
        now_ms = _now_ms()
        changed = await self._amend(account, key_id, lambda grant: revoked(grant, now_ms))
        await self._audit.tell(EventType.KEY_REVOKED, account=account, actor=actor, key_id=key_id)
        return changed

    async def suspend(self, account: str, *, suspended: bool) -> None:
        """Make all keys of an account good for nothing, or undo that. Doing it again mends it.

        Raises:
            UnavailableError: keys cannot be kept now.
        """
        for grant in self.list(account):
            await self._amend(
                account,
                grant.key_id,
                lambda found: found.model_copy(update={"suspended": suspended}),
            )

    async def _amend(
        self, account: str, key_id: str, rule: Callable[[KeyGrant], KeyGrant]
    ) -> KeyGrant:
        self._check_fresh()
        digest = self._digests.get(account, {}).get(key_id)
        if digest is None:
            raise _unknown(key_id)
        entry = await amend(self._mirror.bucket, digest, rule)
        self._mirror.learn(digest, entry)
        return entry.value

    async def _make_room(self, account: str) -> None:
        kept = self.list(account)
        if sum(each.revoked_ms is None for each in kept) >= MAX_KEYS:
            raise ForbiddenError(f"Nobody has more than {MAX_KEYS} keys.")
        if len(kept) >= MAX_KEPT:
            oldest = next(each for each in reversed(kept) if each.revoked_ms is not None)
            await self._mirror.bucket.delete(self._digests[account][oldest.key_id])

    def _check_fresh(self) -> None:
        if not self._mirror.is_fresh:
            raise UnavailableError("The keys are not at hand yet.", retry_after_s=2)

    def _note(self, digest: str, grant: KeyGrant | None) -> None:
        account, key_id = self._places.pop(digest, ("", ""))
        if account:
            of_account = self._digests[account]
            of_account.pop(key_id)
            if not of_account:
                del self._digests[account]
        if grant is not None:
            self._places[digest] = (grant.account, grant.key_id)
            self._digests.setdefault(grant.account, {})[grant.key_id] = digest


def _unknown(key_id: str) -> NotFoundError:
    return NotFoundError(f"There is no key {key_id!r}.", param="key_id")


def _now_ms() -> int:
    return int(time.time() * 1000)
