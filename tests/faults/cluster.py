# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Three nats-servers as processes, which keep one site's streams together."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol.naming import encode_token, random_id
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.binary import find_server
from helexa.site.config import LOOPBACK, Cluster, SiteConfig
from helexa.site.enrolment import EnrolledUsers
from helexa.site.keys import Identity
from helexa.site.layout import DataDir
from helexa.site.reload import system_connection
from helexa.site.server import NatsServer

SERVERS = 3
READY_WITHIN_S = 60.0


@dataclass(slots=True)
class RunningCluster:
    """The servers, each with a data directory of its own; all have the first one's keys."""

    servers: dict[str, NatsServer]
    """By the server's name."""

    @property
    def data(self) -> DataDir:
        """Where the site's keys are, and its file of enrolled neurons."""
        return next(iter(self.servers.values())).data

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"nats://{LOOPBACK}:{each.config.port}" for each in self.servers.values())

    def connection(self, role: Role, neuron: str | None = None) -> Connection:
        path = self.data.neuron_key(neuron) if neuron else self.data.role_key(role)
        prefix = inbox_prefix(role, encode_token(neuron) if neuron else None)
        return Connection(self.urls, f"test-{role}", Identity.load(path).seed, prefix)

    @contextlib.asynccontextmanager
    async def bus(self, role: Role) -> AsyncIterator[Bus]:
        async with Bus(self.connection(role)) as bus, asyncio.timeout(READY_WITHIN_S):
            await bus.wait_connected()
            yield bus

    @contextlib.asynccontextmanager
    async def system(self) -> AsyncIterator[Bus]:
        seed = Identity.load(self.data.system_key).seed
        async with Bus(system_connection(self.urls, seed)) as bus, asyncio.timeout(READY_WITHIN_S):
            await bus.wait_connected()
            yield bus

    async def kill(self, name: str) -> None:
        """End a server as a power cut does."""
        os.kill(self.servers[name].pid, signal.SIGKILL)
        await self.servers[name].wait()

    async def restart(self, name: str) -> None:
        """Start a server that has ended, where it was."""
        before = self.servers[name]
        self.servers[name] = NatsServer(before.binary, before.data, before.config)
        await self.servers[name].__aenter__()


@contextlib.asynccontextmanager
async def cluster(path: Path, neurons: Collection[str] = ()) -> AsyncIterator[RunningCluster]:
    """Run three servers inside the block, which let `neurons` in."""
    binary, secret = find_server(), random_id()
    ports = [free_port() for _ in range(2 * SERVERS)]
    routes = tuple(f"{LOOPBACK}:{port}" for port in ports[SERVERS:])
    first = DataDir(path / "nats-1")
    enrolled = EnrolledUsers()
    first.create()
    for neuron in neurons:
        key = Identity.load_or_create(first.neuron_key(neuron))
        enrolled = enrolled.add_neuron(neuron, key.public)
    enrolled.save(first.neurons_conf)
    made: dict[str, NatsServer] = {}
    async with contextlib.AsyncExitStack() as stack:
        for number in range(SERVERS):
            name = f"nats-{number + 1}"
            part = Cluster(name, routes, secret, port=ports[SERVERS + number])
            config = SiteConfig("home", cluster=part, port=ports[number])
            data = DataDir(path / name)
            if number:
                data.create()
                shutil.copytree(first.keys, data.keys, dirs_exist_ok=True)
                shutil.copy(first.neurons_conf, data.neurons_conf)
            made[name] = await stack.enter_async_context(NatsServer(binary, data, config))
        running = RunningCluster(made)
        # A server that was started again is not the one that the stack knows.
        stack.push_async_callback(_stop, running)
        yield running


async def _stop(running: RunningCluster) -> None:
    await asyncio.gather(*(server.stop() for server in running.servers.values()))
