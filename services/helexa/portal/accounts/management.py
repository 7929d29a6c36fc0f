# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What those who manage a portal or a site do to accounts."""

from helexa.portal.accounts.audit import Audit
from helexa.portal.accounts.keys import ApiKeys
from helexa.portal.accounts.roles import with_roles, with_status
from helexa.portal.accounts.users import Users
from helexa.protocol.messages.accounts import User, UserRole, UserStatus
from helexa.protocol.messages.events import EventType


class Management:
    """Roles and statuses of users."""

    def __init__(self, users: Users, keys: ApiKeys, audit: Audit) -> None:
        """Change `users`, and with them `keys`."""
        self._users = users
        self._keys = keys
        self._audit = audit

    async def set_roles(self, actor: User, user_id: str, roles: tuple[str, ...]) -> User:
        """Give a user these roles, and no others.

        Raises:
            ForbiddenError: `actor` may not.
            BadRequestError: there is no such role.
            NotFoundError: there is no such user.
            UnavailableError: accounts cannot be kept now.
        """
        user = await self._users.change(user_id, lambda each: with_roles(actor, each, roles))
        await self._tell_roles(user, actor.user_id)
        return user

    async def set_status(self, actor: User, user_id: str, status: str) -> User:
        """Suspend a user, sessions and keys included, or undo that. Doing it again mends it.

        Raises:
            ForbiddenError: `actor` may not.
            BadRequestError: there is no such status.
            NotFoundError: there is no such user.
            UnavailableError: accounts cannot be kept now.
        """
        user = await self._users.change(user_id, lambda each: with_status(actor, each, status))
        await self._keys.suspend(user_id, suspended=status == UserStatus.SUSPENDED)
        await self._audit.tell(
            EventType.USER_STATUS_CHANGED, account=user_id, actor=actor.user_id, state=status
        )
        return user

    async def make_operator(self, user_id: str) -> User:
        """Make a user an operator by the right of who can reach the site's files.

        Raises:
            NotFoundError: there is no such user.
            UnavailableError: accounts cannot be kept now.
        """
        user = await self._users.change(
            user_id,
            lambda each: each.model_copy(
                update={
                    "roles": tuple(dict.fromkeys((*each.roles, UserRole.OPERATOR))),
                    "status": UserStatus.ACTIVE,
                }
            ),
        )
        await self._tell_roles(user, "site")
        return user

    async def _tell_roles(self, user: User, actor: str) -> None:
        await self._audit.tell(
            EventType.USER_ROLES_CHANGED,
            account=user.user_id,
            actor=actor,
            state=" ".join(user.roles),
        )
