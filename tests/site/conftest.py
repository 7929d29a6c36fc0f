# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One running site for all tests of this folder, with two enrolled neurons."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol.naming import encode_token, random_id
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.binary import ServerBinary, find_server
from helexa.site.config import ANY_PORT, SiteConfig
from helexa.site.enrolment import EnrolledUsers
from helexa.site.keys import Identity
from helexa.site.layout import DataDir
from helexa.site.reload import system_connection
from helexa.site.server import NatsServer

OWN = "n-1"
OTHER = "n 2.b"


@dataclass(frozen=True)
class User:
    """A connection, and what the server refused on it."""

    client: Client
    refusals: "asyncio.Queue[str]"
    closed: asyncio.Event

    async def refused(self) -> list[str]:
        """Return every refusal of what was sent before; the server has then seen all of it."""
        # nats-py's flush is no barrier: its PING overtakes what is still to be written.
        last = f"{random_id()}.last"
        await self.client.publish(last, b"")
        found: list[str] = []
        async with asyncio.timeout(10):
            while last not in (refusal := await self.refusals.get()):
                found.append(refusal)
        return found


class Site:
    """A site that runs, and its users."""

    def __init__(self, data: DataDir, url: str, server: NatsServer | None = None) -> None:
        self.data = data
        self.url = url
        self.server = server

    def identity(self, role: Role, neuron: str | None = None) -> Identity:
        path = self.data.neuron_key(neuron) if neuron else self.data.role_key(role)
        return Identity.load(path)

    @contextlib.asynccontextmanager
    async def user(self, role: Role, neuron: str | None = None) -> AsyncIterator[User]:
        refusals: asyncio.Queue[str] = asyncio.Queue()

        async def note(error: Exception) -> None:
            refusals.put_nowait(str(error))

        closed = asyncio.Event()

        async def note_closed() -> None:
            closed.set()

        client = await nats.connect(
            self.url,
            nkeys_seed_str=self.identity(role, neuron).seed,
            inbox_prefix=inbox_prefix(role, encode_token(neuron) if neuron else None).encode(),
            allow_reconnect=False,
            error_cb=note,
            closed_cb=note_closed,
        )
        try:
            yield User(client, refusals, closed)
        finally:
            await client.close()

    @contextlib.asynccontextmanager
    async def bus(self, role: Role, neuron: str | None = None) -> AsyncIterator[Bus]:
        seed = self.identity(role, neuron).seed
        prefix = inbox_prefix(role, encode_token(neuron) if neuron else None)
        connection = Connection((self.url,), f"test-{role}", seed, prefix)
        async with Bus(connection) as bus, asyncio.timeout(20):
            await bus.wait_connected()
            yield bus

    @contextlib.asynccontextmanager
    async def system(self) -> AsyncIterator[Bus]:
        seed = Identity.load(self.data.system_key).seed
        async with Bus(system_connection((self.url,), seed)) as bus, asyncio.timeout(20):
            await bus.wait_connected()
            yield bus


@pytest.fixture(scope="session")
def binary() -> ServerBinary:
    return find_server()


@contextlib.asynccontextmanager
async def run_site(binary: ServerBinary, path: Path) -> AsyncIterator[Site]:
    data = DataDir(path)
    enrolled = EnrolledUsers()
    for neuron in (OWN, OTHER):
        enrolled = enrolled.add_neuron(
            neuron, Identity.load_or_create(data.neuron_key(neuron)).public
        )
    enrolled.save(data.neurons_conf)
    async with NatsServer(binary, data, SiteConfig("test", port=ANY_PORT)) as server:
        yield Site(data, server.url, server)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_site(
    binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    async with run_site(binary, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The shared site; tests leave its users as they are."""
    return Site(shared_site.data, shared_site.url)


NewSite = Callable[[Path], AbstractAsyncContextManager[Site]]


@pytest.fixture
def new_site(binary: ServerBinary) -> NewSite:
    """Start a site of the test's own."""
    return lambda path: run_site(binary, path)
