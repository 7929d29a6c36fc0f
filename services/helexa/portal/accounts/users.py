# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where users are kept, in one place for all replicas of all portals of a site."""

from collections.abc import Callable

from helexa.bus.buckets import Bucket
from helexa.bus.client import Bus
from helexa.portal.accounts.addresses import address_key
from helexa.portal.accounts.amending import amend
from helexa.protocol import resources
from helexa.protocol.errors import ConflictError
from helexa.protocol.messages.accounts import AddressClaim, User

NOBODY = "user_nobody"
"""No user has this id."""


class Users:
    """The users of a site. Every method raises `UnavailableError` where they cannot be reached."""

    def __init__(self, bus: Bus) -> None:
        """Keep them in the site's buckets."""
        self._users = Bucket(bus, resources.ACCOUNTS, User)
        self._claims = Bucket(bus, resources.ADDRESSES, AddressClaim)

    async def create(self, user: User) -> bool:
        """Keep a new user; False: somebody at this portal has the address.

        The user is written first, so that an address never leads to nobody. What a process that
        dies in between leaves behind is a record that nothing leads to.
        """
        await self._users.put(user.user_id, user)
        claim = AddressClaim(user_id=user.user_id, claimed_ms=user.created_ms)
        try:
            await self._claims.replace(address_key(user.portal, user.address), claim, None)
        except ConflictError:
            await self._users.delete(user.user_id)
            return False
        return True

    async def find(self, user_id: str) -> User | None:
        """Return the user of this id."""
        found = await self._users.get(user_id)
        return found.value if found else None

    async def at(self, portal: str, address: str) -> User | None:
        """Return whose normalised address this is.

        It takes as many steps where it is nobody's.
        """
        claim = await self._claims.get(address_key(portal, address))
        return await self.find(claim.value.user_id if claim else NOBODY)

    async def change(self, user_id: str, rule: Callable[[User], User]) -> User:
        """Replace a user by `rule` of it, and return what it is now.

        Raises:
            NotFoundError: there is no such user.
            HelexaError: what `rule` raises.
        """
        return (await amend(self._users, user_id, rule)).value
