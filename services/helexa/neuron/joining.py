# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which sites to join, and how a neuron that a site does not know yet is let in."""

import asyncio
import contextlib
import logging
import re
import secrets
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_random_exponential

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.neuron.settings import NeuronSettings
from helexa.process.settings import SettingsError
from helexa.protocol import subjects
from helexa.protocol.errors import DeadlineExceededError, UnauthorizedError, UnavailableError
from helexa.protocol.messages.neurons import EnrolRequest, enrolment_proof
from helexa.protocol.naming import encode_token, is_token
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.connect import servers_of
from helexa.site.enrolment import TOKEN_PREFIX, parse_join_token
from helexa.site.files import read_secret
from helexa.site.keys import Identity
from helexa.site.layout import DataDir

_log = logging.getLogger(__name__)

DEFAULT_SITE = "default"
ENROL_WITHIN_S = 15.0
LOOK_S = 0.25
"""Pause between looks at a connection that does not come about."""
REFUSED_LOOKS = 4
"""One refusal of a good token was seen once, at a site's start; a bad one stays refused."""
_NAMED = re.compile(r"([^=:/]+)=(.+)")
_REFUSALS = ("authorization", "authentication")


@dataclass(frozen=True, slots=True)
class Site:
    """A site to join."""

    name: str
    urls: tuple[str, ...]


def read_sites(settings: NeuronSettings, token_urls: tuple[str, ...] = ()) -> tuple[Site, ...]:
    """Return the sites that `settings` name, else the join token's, else this machine's own.

    Raises:
        SettingsError: there is none, or one is not `NAME=URL[,URL…]`.
    """
    if settings.site:
        return parse_sites(settings.site)
    if settings.nats_url or not token_urls:
        return (Site(DEFAULT_SITE, servers_of(settings)),)
    return (Site(DEFAULT_SITE, token_urls),)


def parse_sites(texts: tuple[str, ...]) -> tuple[Site, ...]:
    """Return the sites in `NAME=URL,URL` texts; a text without a name goes on with the last one.

    Raises:
        SettingsError: the first has no name, a name cannot be one, or one comes twice.
    """
    found: dict[str, list[str]] = {}
    name = ""
    for part in (part.strip() for text in texts for part in text.split(",")):
        named = _NAMED.fullmatch(part)
        if named:
            name = named[1]
            if name in found or not is_token(name):
                raise SettingsError(f"--site: {name!r} is given twice or is no name")
        if not name:
            raise SettingsError(f"--site: {part!r} is not NAME=URL, as in home=nats://host:4222")
        found.setdefault(name, []).append(named[2] if named else part)
    return tuple(Site(name, tuple(urls)) for name, urls in found.items())


class JoinToken:
    """What lets this neuron into a site that does not know it."""

    def __init__(self, settings: NeuronSettings, data: DataDir) -> None:
        """Take it from the settings, else from the file that they name, else this machine's own."""
        self._given = settings.join_token
        self._file = settings.join_token_file
        self._own = data.role_key(Role.ENROLMENT)

    @property
    def is_named(self) -> bool:
        """Whether the settings name one: the neuron joins where it was not before."""
        return self._given is not None or self._file is not None

    def read(self) -> tuple[Identity | None, tuple[str, ...]]:
        """Return the identity that asks to be let in, if it is there yet, and the site's addresses.

        Raises:
            JoinTokenError: the token is not whole.
            KeyFileError: its file cannot be used.
        """
        if self._given is not None:
            return _parse(self._given.get_secret_value())
        if self._file is not None:
            return _parse(read_secret(self._file)) if self._file.exists() else (None, ())
        return (Identity.load(self._own) if self._own.exists() else None), ()


def _parse(text: str) -> tuple[Identity, tuple[str, ...]]:
    if text.startswith(TOKEN_PREFIX):
        return parse_join_token(text)
    return Identity.from_seed(text.strip()), ()


def neuron_connection(site: Site, neuron_id: str, identity: Identity, instance: str) -> Connection:
    """Return how the neuron connects to `site`."""
    return Connection(
        servers=site.urls,
        name=f"helexa-{Role.NEURON}-{instance}",
        seed=identity.seed,
        inbox_prefix=inbox_prefix(Role.NEURON, encode_token(neuron_id)),
        may_be_refused=True,
    )


def is_refused(bus: Bus) -> bool:
    """Whether the site's servers do not know who connects."""
    said = (bus.last_error or "").lower()
    return not bus.is_connected and any(word in said for word in _REFUSALS)


async def enrol(urls: tuple[str, ...], join: Identity, neuron_id: str, identity: Identity) -> None:
    """Return when the site's servers know `neuron_id`. Waits for a provisioner as long as it takes.

    Raises:
        IdentityConflictError: the id belongs to another key.
        UnauthorizedError: the join token is not valid, or no longer.
    """
    nonce = secrets.token_bytes(16)
    request = EnrolRequest(
        neuron_id=neuron_id,
        public_key=identity.public,
        nonce=nonce,
        signature=identity.sign(enrolment_proof(neuron_id, nonce)),
    )
    retrying = AsyncRetrying(
        retry=retry_if_exception_type((UnavailableError, DeadlineExceededError)),
        wait=wait_random_exponential(multiplier=0.25, max=10),
        before_sleep=_say_once,
    )
    connection = Connection(
        servers=urls,
        name=f"helexa-{Role.ENROLMENT}",
        seed=join.seed,
        inbox_prefix=inbox_prefix(Role.ENROLMENT),
    )
    async with Bus(connection) as bus:
        await _connected(bus)
        async for attempt in retrying:
            with attempt:
                await bus.request(subjects.ENROL, request, deadline_s=ENROL_WITHIN_S)


async def _connected(bus: Bus) -> None:
    refused_looks = 0
    while not bus.is_connected:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(bus.wait_connected(), LOOK_S)
        refused_looks = refused_looks + 1 if is_refused(bus) else 0
        if refused_looks >= REFUSED_LOOKS:
            raise UnauthorizedError(
                "the site does not accept the join token; ask its operator for a new one"
            )


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        error = state.outcome.exception() if state.outcome else None
        _log.warning("enrolment_waits", extra={"error": str(error)})
