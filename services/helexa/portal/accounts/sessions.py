# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who is logged in."""

from typing import NamedTuple

from helexa.bus.buckets import Bucket
from helexa.bus.client import Bus
from helexa.portal.accounts.minting import mint_secret
from helexa.protocol import resources
from helexa.protocol.messages.accounts import Session, User, UserStatus
from helexa.protocol.naming import digest_of


class Opened(NamedTuple):
    """A session that has just begun."""

    secret: str
    """For the user's browser alone."""
    session: Session
    user: User


def is_good(session: Session, user: User, portal: str, now_ms: int) -> bool:
    """Whether a session still says that its bearer is `user`.

    A new password ends all sessions that were begun under an older one.
    """
    return (
        session.portal == portal == user.portal
        and session.user_id == user.user_id
        and session.password_edition == user.password_edition
        and user.status == UserStatus.ACTIVE
        and now_ms < session.expires_ms
    )


class Sessions:
    """The sessions of a site. Methods raise `UnavailableError` where they cannot be reached."""

    def __init__(self, bus: Bus) -> None:
        """Keep them in the site's bucket, where they expire."""
        self._kept = Bucket(bus, resources.SESSIONS, Session)

    async def open(self, user: User, now_ms: int) -> Opened:
        """Begin a session of `user`."""
        minted = mint_secret()
        session = Session(
            user_id=user.user_id,
            portal=user.portal,
            password_edition=user.password_edition,
            created_ms=now_ms,
            expires_ms=now_ms + round(resources.SESSION_S * 1000),
        )
        await self._kept.replace(minted.digest, session, None)
        return Opened(minted.secret, session, user)

    async def find(self, secret: str) -> Session | None:
        """Return the session with this secret, good or not."""
        found = await self._kept.get(digest_of(secret))
        return found.value if found else None

    async def close(self, secret: str) -> None:
        """End a session; nothing happens if there is none."""
        await self._kept.delete(digest_of(secret))
