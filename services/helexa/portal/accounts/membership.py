# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What people do with their accounts: sign up, log in, stay logged in, set passwords.

No answer says whether an address has an account, and none takes longer for it.
"""

import contextlib
import time
from dataclasses import dataclass, field

from helexa.bus.client import Bus
from helexa.portal.accounts.addresses import normalise
from helexa.portal.accounts.audit import Audit
from helexa.portal.accounts.challenges import Challenges, spent
from helexa.portal.accounts.credentials import (
    barred,
    logged_out,
    verified,
    with_password,
    wrong,
)
from helexa.portal.accounts.gates import Gate, GateRates
from helexa.portal.accounts.hashing import Hasher
from helexa.portal.accounts.letters import Letter, LetterKind, Postman
from helexa.portal.accounts.minting import new_id
from helexa.portal.accounts.passwords import check_password, prepare
from helexa.portal.accounts.sessions import Opened, Sessions, is_good
from helexa.portal.accounts.users import Users
from helexa.protocol.errors import BadRequestError, ConflictError
from helexa.protocol.messages.accounts import ChallengePurpose, User, UserStatus
from helexa.protocol.messages.events import EventType


@dataclass(frozen=True, slots=True)
class Customs:
    """How a portal deals with people."""

    portal: str = "default"
    verifies_addresses: bool = True
    """Whether an account waits for its address to be shown to be the user's. Without that, whoever
    signs up with an address and then logs in learns whether it had an account."""
    sign_up: GateRates = field(default_factory=GateRates)
    log_in: GateRates = field(default_factory=GateRates)


class Membership:
    """The accounts of one portal."""

    def __init__(
        self, bus: Bus, customs: Customs, hasher: Hasher, postman: Postman, audit: Audit
    ) -> None:
        """Keep accounts in the site's buckets, and write to people by `postman`."""
        self.users = Users(bus)
        self._sessions = Sessions(bus)
        self._challenges = Challenges(bus)
        self._customs = customs
        self._hasher = hasher
        self._postman = postman
        self._audit = audit
        self._sign_ups = Gate(customs.sign_up)
        self._log_ins = Gate(customs.log_in)

    async def sign_up(self, address: str, password: str, *, name: str = "", client: str) -> None:
        """Make an account, or tell who has the address already that somebody tried.

        Raises:
            BadRequestError: it is no address, or the password is not taken.
            RateLimitedError: too many tries.
            UnavailableError: accounts cannot be kept now.
        """
        made, secret = normalise(address), prepare(password)
        check_password(secret, address=made, name=name)
        self._sign_ups.enter(self._customs.portal, made, client)
        verifies = self._customs.verifies_addresses
        user = User(
            user_id=new_id("user"),
            portal=self._customs.portal,
            address=made,
            name=name,
            password_hash=await self._hasher.hash(secret),
            status=UserStatus.UNVERIFIED if verifies else UserStatus.ACTIVE,
            created_ms=_now_ms(),
        )
        if not await self.users.create(user):
            await self._sign_up_again(user)
            return
        await self._audit.tell(EventType.USER_SIGNED_UP, account=user.user_id)
        if verifies:
            await self._write(user, LetterKind.VERIFY, ChallengePurpose.VERIFY)

    async def verify(self, secret: str, password: str) -> Opened:
        """Show that the address is the user's, who is logged in then.

        The password is asked for too: whoever signed up with somebody else's address knows the one
        and cannot show the other.

        Raises:
            BadRequestError: the secret is good for nothing.
            UnauthorizedError: the password is wrong.
            UnavailableError: accounts cannot be kept now.
        """
        now_ms = _now_ms()
        found = await self._challenges.look(secret, ChallengePurpose.VERIFY, now_ms)
        user = await self.users.find(found.value.user_id)
        if user is None or user.password_edition != found.value.password_edition:
            raise spent()
        self._log_ins.enter(user.portal, user.address, None)
        if not await self._hasher.verify(user.password_hash, prepare(password)):
            raise wrong()
        await self._challenges.use(secret, found)
        user = await self.users.change(user.user_id, verified)
        if user.status != UserStatus.ACTIVE:
            raise barred(user)
        await self._audit.tell(EventType.USER_VERIFIED, account=user.user_id)
        return await self._open(user)

    async def log_in(self, address: str, password: str, *, client: str) -> Opened:
        """Begin a session.

        Raises:
            UnauthorizedError: the address or the password is wrong.
            ForbiddenError: both are right, and the account is suspended or waits to be verified.
            RateLimitedError: too many tries.
            UnavailableError: accounts cannot be read now.
        """
        made = _normalised(address)
        self._log_ins.enter(self._customs.portal, made, client)
        user = await self.users.at(self._customs.portal, made)
        secret = prepare(password)
        is_right = await self._hasher.verify(user.password_hash if user else None, secret)
        if user is None or not is_right:
            raise wrong()
        if user.status != UserStatus.ACTIVE:
            raise barred(user)
        if self._hasher.is_outdated(user.password_hash):
            user = await self._rehash(user, secret)
        return await self._open(user)

    async def who(self, secret: str) -> Opened:
        """Return whose session this is.

        Raises:
            UnauthorizedError: it is nobody's, or has ended.
            UnavailableError: sessions cannot be read now.
        """
        session = await self._sessions.find(secret)
        user = await self.users.find(session.user_id) if session else None
        if session is None or user is None:
            raise logged_out()
        if not is_good(session, user, self._customs.portal, _now_ms()):
            raise logged_out()
        return Opened(secret, session, user)

    async def log_out(self, secret: str) -> None:
        """End a session.

        Raises:
            UnavailableError: sessions cannot be reached now.
        """
        session = await self._sessions.find(secret)
        await self._sessions.close(secret)
        if session is not None:
            await self._audit.tell(EventType.USER_LOGGED_OUT, account=session.user_id)

    async def ask_reset(self, address: str, *, client: str) -> None:
        """Send a secret to the address, if it has an account, to set a new password with.

        Raises:
            BadRequestError: it is no address.
            RateLimitedError: too many tries.
            UnavailableError: accounts cannot be read now.
        """
        made = normalise(address)
        self._sign_ups.enter(self._customs.portal, made, client)
        user = await self.users.at(self._customs.portal, made)
        if user is not None and user.status == UserStatus.SUSPENDED:
            user = None
        secret = await self._challenges.issue(user, ChallengePurpose.RESET, _now_ms())
        if user is not None:
            self._post(user, LetterKind.RESET, secret)

    async def reset(self, secret: str, password: str) -> None:
        """Set a new password by the secret that was sent. It shows the address to be theirs too.

        Raises:
            BadRequestError: the secret is good for nothing, or the password is not taken.
            UnavailableError: accounts cannot be kept now.
        """
        found = await self._challenges.look(secret, ChallengePurpose.RESET, _now_ms())
        user = await self.users.find(found.value.user_id)
        if user is None or user.password_edition != found.value.password_edition:
            raise spent()
        made = await self._hash_new(user, password)
        await self._challenges.use(secret, found)
        user = await self.users.change(
            user.user_id, lambda each: with_password(verified(each), made, user.password_edition)
        )
        await self._tell_changed(user, EventType.PASSWORD_RESET)

    async def change_password(self, secret: str, password: str, new: str) -> Opened:
        """Set a new password. All sessions end but the one that is returned, in place of this one.

        Raises:
            UnauthorizedError: the session has ended, or the password is wrong.
            BadRequestError: the new password is not taken.
            RateLimitedError: too many tries.
            UnavailableError: accounts cannot be kept now.
        """
        user = (await self.who(secret)).user
        self._log_ins.enter(user.portal, user.address, None)
        if not await self._hasher.verify(user.password_hash, prepare(password)):
            raise wrong()
        made = await self._hash_new(user, new)
        user = await self.users.change(
            user.user_id, lambda each: with_password(each, made, user.password_edition)
        )
        await self._sessions.close(secret)
        await self._tell_changed(user, EventType.PASSWORD_CHANGED)
        return await self._sessions.open(user, _now_ms())

    async def _sign_up_again(self, user: User) -> None:
        """Deal with a sign-up of an address that has an account."""
        known = await self.users.at(user.portal, user.address)
        if known is None or known.status != UserStatus.UNVERIFIED:
            # Also where it has just been made by another sign-up and cannot be read yet.
            self._post(user, LetterKind.KNOWN, "")
            return
        edition = known.password_edition

        def rule(found: User) -> User:
            made = with_password(found, user.password_hash, edition)
            return made.model_copy(update={"name": user.name})

        # Whoever was first at the same moment has sent a letter, and the others hear no more.
        with contextlib.suppress(ConflictError):
            again = await self.users.change(known.user_id, rule)
            await self._write(again, LetterKind.VERIFY, ChallengePurpose.VERIFY)

    async def _open(self, user: User) -> Opened:
        opened = await self._sessions.open(user, _now_ms())
        await self._audit.tell(EventType.USER_LOGGED_IN, account=user.user_id)
        return opened

    async def _rehash(self, user: User, secret: str) -> User:
        """Keep the same password under the parameters that hashes are made with now."""
        made = await self._hasher.hash(secret)

        def rule(found: User) -> User:
            if found.password_hash != user.password_hash:
                return found
            return found.model_copy(update={"password_hash": made})

        return await self.users.change(user.user_id, rule)

    async def _hash_new(self, user: User, password: str) -> str:
        secret = prepare(password)
        check_password(secret, address=user.address, name=user.name)
        return await self._hasher.hash(secret)

    async def _tell_changed(self, user: User, kind: str) -> None:
        self._post(user, LetterKind.PASSWORD_CHANGED, "")
        await self._audit.tell(kind, account=user.user_id)

    async def _write(self, user: User, kind: LetterKind, purpose: str) -> None:
        secret = await self._challenges.issue(user, purpose, _now_ms())
        self._post(user, kind, secret)

    def _post(self, user: User, kind: LetterKind, secret: str) -> None:
        self._postman.post(Letter(kind, user.portal, user.address, user.name, secret))


def _normalised(address: str) -> str:
    """Return the form of an address; what is none is looked for as it is, and not found."""
    try:
        return normalise(address)
    except BadRequestError:
        return address


def _now_ms() -> int:
    return int(time.time() * 1000)
