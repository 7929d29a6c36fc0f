# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who may do what to whom. Pure."""

from helexa.protocol.errors import BadRequestError, ForbiddenError
from helexa.protocol.messages.accounts import User, UserRole, UserStatus

ROLES = (UserRole.USER, UserRole.ADMIN, UserRole.OPERATOR)
SETTABLE = (UserStatus.ACTIVE, UserStatus.SUSPENDED)


def is_operator(user: User) -> bool:
    """Whether `user` manages the site."""
    return UserRole.OPERATOR in user.roles


def manages(actor: User, portal: str) -> bool:
    """Whether `actor` manages the users of `portal`."""
    return is_operator(actor) or (UserRole.ADMIN in actor.roles and actor.portal == portal)


def check_manages(actor: User, target: User) -> None:
    """Refuse who may not change `target`.

    Nobody changes their own role or status: so whoever took everybody's rights away still has
    their own.

    Raises:
        ForbiddenError: as said.
    """
    if actor.user_id == target.user_id:
        raise ForbiddenError("Nobody changes their own roles or status.")
    if not manages(actor, target.portal) or (is_operator(target) and not is_operator(actor)):
        raise ForbiddenError


def with_roles(actor: User, target: User, roles: tuple[str, ...]) -> User:
    """Return `target` with these roles. Only operators make operators, and unmake them.

    Raises:
        ForbiddenError: `actor` may not.
        BadRequestError: there is no such role.
    """
    check_manages(actor, target)
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise BadRequestError(f"Roles are: {', '.join(ROLES)}.", param="roles")
    if UserRole.OPERATOR in roles and not is_operator(actor):
        raise ForbiddenError
    return target.model_copy(update={"roles": tuple(dict.fromkeys(roles))})


def with_status(actor: User, target: User, status: str) -> User:
    """Return `target` with this status.

    Raises:
        ForbiddenError: `actor` may not.
        BadRequestError: there is no such status, or it is not for others to give.
    """
    check_manages(actor, target)
    if status not in SETTABLE:
        raise BadRequestError(f"A status is: {', '.join(SETTABLE)}.", param="status")
    return target.model_copy(update={"status": status})
