# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Lets new neurons in: checks who they are, tells the site's servers, and only then says yes."""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from helexa.bus.client import Bus
from helexa.protocol.errors import (
    ForbiddenError,
    HelexaError,
    InternalError,
    NotFoundError,
)
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.neurons import Enrolled, EnrolRequest, enrolment_proof
from helexa.provisioner.announcer import Announcer
from helexa.provisioner.identities import Identities
from helexa.site.enrolment import EnrolledUsers, lock_file, make_join_token
from helexa.site.errors import ReloadError, SiteError
from helexa.site.keys import Identity, verify
from helexa.site.permissions import neuron_token
from helexa.site.reload import reload_servers

_log = logging.getLogger(__name__)

WINDOW_S = 0.05
"""Neurons that ask within this time share one reload of the servers."""
SOON_S = 0.5
RETRY_S = 10.0
TOKEN_S = 3600.0
LONGEST_TOKEN_S = 30 * 86_400.0

Change = Callable[[EnrolledUsers], EnrolledUsers]


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What lets one more host, or several, ask to be enrolled until it expires."""

    text: str
    expires_s: int
    """Unix time."""
    urls: tuple[str, ...]


@dataclass(slots=True)
class _Waiting:
    change: Change
    done: asyncio.Future[None]


class Enrolment:
    """The users file of the site's servers, changed by this process.

    Every replica that has the file may change it, under a lock that the kernel releases when its
    holder dies.
    """

    def __init__(
        self,
        system: Bus,
        identities: Identities,
        announcer: Announcer,
        *,
        users_file: Path,
        server_count: int | None,
        join_urls: Sequence[str],
    ) -> None:
        """Change `users_file`, and have the servers read it over `system`.

        Without `server_count`, those count that answer.
        """
        self._system = system
        self._identities = identities
        self._announcer = announcer
        self._file = users_file
        self._server_count = server_count
        self.join_urls = tuple(join_urls)
        self._line: list[_Waiting] = []
        self._asked = asyncio.Event()

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """Let a neuron in; when this returns, its key is accepted.

        Raises:
            BadRequestError: no neuron may have this id.
            ForbiddenError: it does not hold the key that it names.
            IdentityConflictError: the id belongs to another key, or the key to another user.
            UnavailableError: not every server of the site could be told.
        """
        neuron_token(request.neuron_id)
        proof = enrolment_proof(request.neuron_id, request.nonce)
        if not verify(request.public_key, proof, request.signature):
            raise ForbiddenError("the signature was not made with the key that is named")
        is_new = await self._identities.bind(request.neuron_id, request.public_key)
        try:
            await self._change(
                lambda users: users.add_neuron(request.neuron_id, request.public_key)
            )
        except HelexaError:
            if is_new:
                await self._identities.release(request.neuron_id)
            raise
        _log.info("neuron_enrolled", extra={"neuron": request.neuron_id})
        self._announcer.say(EventType.NEURON_ENROLLED, neuron_id=request.neuron_id)
        return Enrolled(neuron_id=request.neuron_id)

    async def open_token(self, lasts_s: float = TOKEN_S, urls: Sequence[str] = ()) -> JoinToken:
        """Return a new join token that is good for `lasts_s` seconds.

        Raises:
            UnavailableError: not every server of the site could be told.
        """
        identity = Identity.generate()
        expires_s = int(time.time() + lasts_s)
        await self._change(lambda users: users.add_token(identity.public, expires_s))
        found = tuple(urls) or self.join_urls
        return JoinToken(make_join_token(identity.seed, found), expires_s, found)

    async def token_expiry_s(self, public: str) -> int:
        """Return until when a join token is open, in unix seconds; 0 for one that is not."""
        users = await asyncio.to_thread(EnrolledUsers.load, self._file)
        return users.tokens.get(public, 0)

    async def expel(self, neuron_id: str) -> None:
        """Let a neuron in no more, and end its connection.

        Raises:
            NotFoundError: it is not enrolled.
            UnavailableError: not every server of the site could be told.
        """
        users = await asyncio.to_thread(EnrolledUsers.load, self._file)
        if neuron_id not in users.neurons:
            raise NotFoundError(f"no neuron {neuron_id} is enrolled")
        await self._change(lambda users: users.remove_neuron(neuron_id))
        await self._identities.release(neuron_id)

    async def run(self) -> None:
        """Carry out changes, those of one window together, and end tokens, until cancelled."""
        # The servers may still run with the permissions of an earlier version.
        await self._apply([])
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(await self._next_expiry_s()):
                    await self._asked.wait()
                    await asyncio.sleep(WINDOW_S)
            self._asked.clear()
            line, self._line = self._line, []
            await self._apply(line)

    async def _next_expiry_s(self) -> float | None:
        try:
            users = await asyncio.to_thread(EnrolledUsers.load, self._file)
        except SiteError as error:
            _log.error("enrolment_failed", extra={"error": str(error)})
            return RETRY_S
        if not users.tokens:
            return None
        return max(SOON_S, min(users.tokens.values()) - time.time())

    async def _change(self, change: Change) -> None:
        waiting = _Waiting(change, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._asked.set()
        await waiting.done

    async def _apply(self, line: Sequence[_Waiting]) -> None:
        try:
            accepted = await self._save_and_reload(line)
        except HelexaError as error:
            failure = error
        except SiteError as error:
            _log.error("enrolment_failed", extra={"error": str(error)})
            failure = InternalError("the site's servers could not be told")
        else:
            for waiting in accepted:
                if not waiting.done.done():
                    waiting.done.set_result(None)
            return
        for waiting in line:
            if not waiting.done.done():
                waiting.done.set_exception(failure)

    async def _save_and_reload(self, line: Sequence[_Waiting]) -> list[_Waiting]:
        async with _locked(self._file):
            before = await asyncio.to_thread(EnrolledUsers.load, self._file)
            after, accepted = before.expire_tokens(time.time()), []
            for waiting in line:
                try:
                    after = waiting.change(after)
                    accepted.append(waiting)
                except HelexaError as error:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
            # Even an unchanged file is read again: a server may have missed it the last time.
            await asyncio.to_thread(after.save, self._file)
            try:
                await reload_servers(self._system, expected=self._server_count)
            except ReloadError:
                await asyncio.to_thread(before.save, self._file)
                raise
        return accepted


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock beside `path` against this machine's other provisioners."""
    descriptor = os.open(lock_file(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
