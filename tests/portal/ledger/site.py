# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the ledger's tests share: a journal on a real server, and replicas of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.journal import Journal
from helexa.bus.lease import Lease
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.service import Service
from helexa.portal.ledger.client import LedgerClient
from helexa.portal.ledger.commands import COMMANDS, AnyCommand, Deposit
from helexa.portal.ledger.ledger import Ledger
from helexa.portal.ledger.projection import open_projection
from helexa.portal.ledger.replica import Replica
from helexa.portal.ledger.sequencer import Placed, Sequencer
from helexa.protocol import resources
from helexa.protocol.errors import DeadlineExceededError, UnavailableError
from helexa.protocol.subjects import Role

PORTAL = resources.DEFAULT_PORTAL
NOW = 1_770_000_000_000
WITHIN_S = 60.0
RETRYABLE = (UnavailableError, DeadlineExceededError)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Bus]:
    """Connect to a site that has everything that a portal owns."""
    async with Bus(Connection((url,), "test")) as bus:
        await ensure_resources(bus, Role.PORTAL, Durability())
        yield bus


def deposit(number: int, amount: int = 100) -> Deposit:
    return Deposit(user="ada", currency="USD", rail="bank", reference=f"d{number}", amount=amount)


@dataclass(slots=True)
class Writers:
    """Writers of one journal, each with its own projection and with no lease between them."""

    bus: Bus
    directory: Path
    resources: ExitStack
    running: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def journal(self) -> Journal:
        return Journal(self.bus, resources.LEDGER)

    async def replica(self, name: str) -> Replica:
        projection = self.resources.enter_context(open_projection(self.directory / name, PORTAL))
        return await Replica.open(PORTAL, self.journal, projection)

    async def writer(self, name: str) -> Sequencer:
        return self.write(await self.replica(name))

    def write(self, replica: Replica) -> Sequencer:
        sequencer = Sequencer(replica, lambda: NOW)
        self.running.append(asyncio.create_task(sequencer.run()))
        return sequencer

    async def end(self) -> None:
        for task in self.running:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


@asynccontextmanager
async def writers(url: str, directory: Path) -> AsyncIterator[Writers]:
    async with connected(url) as bus:
        with ExitStack() as stack:
            made = Writers(bus, directory, stack)
            try:
                yield made
            finally:
                await made.end()


async def enter(sequencer: Sequencer, command: AnyCommand) -> Placed:
    answer = await asyncio.wait_for(sequencer.submit(COMMANDS.pack(command)), WITHIN_S)
    assert isinstance(answer, Placed), answer
    return answer


@asynccontextmanager
async def living(url: str, directory: Path, instance: str) -> AsyncIterator[Ledger]:
    """Run one replica as a portal's process does, on a connection of its own."""
    async with connected(url) as bus:
        with open_projection(directory, PORTAL) as projection:
            lease = Lease(bus, PORTAL, instance, bucket=resources.PORTAL_LEASES)
            service = Service(bus, Role.PORTAL, instance=instance, version="0")
            journal = Journal(bus, resources.LEDGER)
            ledger = Ledger(PORTAL, journal, projection, lease, service)
            tasks = [asyncio.create_task(lease.run()), asyncio.create_task(ledger.run())]
            try:
                yield ledger
            finally:
                await service.drain(1)
                for task in reversed(tasks):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task


async def until_entered(client: LedgerClient, command: AnyCommand) -> Placed:
    """Send a command, as often as it takes, until the ledger has answered."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with suppress(*RETRYABLE):
                answer = await client.enter(command, deadline_s=2)
                assert isinstance(answer, Placed), answer
                return answer
            await asyncio.sleep(0.05)
