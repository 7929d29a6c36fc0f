# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How a user changes by what they have shown, and what is told to who has not. Pure."""

from helexa.protocol.errors import ConflictError, ForbiddenError, UnauthorizedError
from helexa.protocol.messages.accounts import User, UserStatus


def with_password(user: User, password_hash: str, edition: int) -> User:
    """Return `user` with a new password, if the one of this edition is still theirs.

    Raises:
        ConflictError: it is not.
    """
    if user.password_edition != edition:
        raise ConflictError("The password has been changed meanwhile.")
    return user.model_copy(update={"password_hash": password_hash, "password_edition": edition + 1})


def verified(user: User) -> User:
    """Return `user` as somebody who has shown that the address is theirs."""
    if user.status != UserStatus.UNVERIFIED:
        return user
    return user.model_copy(update={"status": UserStatus.ACTIVE})


def wrong() -> UnauthorizedError:
    """Return the refusal of an address or a password, whichever of them is wrong."""
    return UnauthorizedError("The address or the password is wrong.")


def barred(user: User) -> ForbiddenError:
    """Return the refusal of somebody whose password is right."""
    return ForbiddenError(f"The account is {user.status}.", reason=user.status)


def logged_out() -> UnauthorizedError:
    """Return the refusal of a session that is none any more."""
    return UnauthorizedError("Nobody is logged in here.")
