# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Kills replicas and servers under load: what was acknowledged is found, once.

`HELEXA_KILLS=30` makes it 30 kills; the default is 5.
"""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random

from tests.conftest import Broker
from tests.portal.ledger.site import PORTAL, connected, deposit, until_entered, writers

from helexa.bus.client import Bus
from helexa.bus.journal import Journal
from helexa.portal.ledger import accounts
from helexa.portal.ledger.audit import verify
from helexa.portal.ledger.block import read_block
from helexa.portal.ledger.client import LedgerClient
from helexa.portal.ledger.records import Records
from helexa.process.settings import current_environment
from helexa.protocol import resources

KILLS = int(current_environment().get("HELEXA_KILLS", "5"))
ROOT = Path(__file__).parents[3]
NAMES = ("one", "two")
CLIENTS = 8
BETWEEN = 60
"""Commands acknowledged between two kills."""


class Replicas:
    """Replicas as processes."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        program = [sys.executable, "-m", "tests.portal.ledger.process"]
        directory = str(self._directory / name)
        self._processes[name] = subprocess.Popen([*program, self._url, directory, name], cwd=ROOT)

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait()


@contextmanager
def replicas(url: str, directory: Path) -> Iterator[Replicas]:
    made = Replicas(url, directory)
    for name in NAMES:
        made.start(name)
    try:
        yield made
    finally:
        made.stop()


class Load:
    """Clients that enter one deposit after another, each until it is acknowledged."""

    def __init__(self, bus: Bus) -> None:
        self._client = LedgerClient(bus, PORTAL)
        self._next = 0
        self.acknowledged: list[int] = []
        self._enough = asyncio.Condition()

    async def run(self) -> None:
        while True:
            self._next += 1
            number = self._next
            await until_entered(self._client, deposit(number))
            async with self._enough:
                self.acknowledged.append(number)
                self._enough.notify_all()

    async def more(self, count: int) -> None:
        wanted = len(self.acknowledged) + count
        async with self._enough, asyncio.timeout(60):
            await self._enough.wait_for(lambda: len(self.acknowledged) >= wanted)


async def test_what_was_acknowledged_survives_every_kill_once(
    broker: Broker, tmp_path: Path
) -> None:
    random = Random(7)  # noqa: S311 - the same kills in each run
    async with connected(broker.url) as bus:
        load = Load(bus)
        with replicas(broker.url, tmp_path) as running:
            clients = [asyncio.create_task(load.run()) for _ in range(CLIENTS)]
            await load.more(BETWEEN)
            for number in range(KILLS):
                victim = ("server", *NAMES)[number % 3]
                await asyncio.sleep(random.random() * 0.05)
                if victim == "server":
                    broker.stop(kill=True)
                    broker.start()
                else:
                    running.kill(victim)
                    running.start(victim)
                await load.more(BETWEEN)
            for client in clients:
                client.cancel()
                with suppress(asyncio.CancelledError):
                    await client
    async with writers(broker.url, tmp_path) as site:
        found: Counter[str] = Counter()
        async for kept in Journal(site.bus, resources.LEDGER).read(1):
            found.update(entry.id for entry in read_block(kept.data).entries)
        for name in NAMES:
            state = (await site.replica(name)).state
            assert state.balance(accounts.available("ada", "USD")) == found.total() * 100
    lost = [number for number in load.acknowledged if not found[deposit(number).id]]
    double = [name for name, count in found.items() if count > 1]
    assert (lost, double) == ([], [])
    assert len(load.acknowledged) >= BETWEEN * (KILLS + 1)
    for name in NAMES:
        with closing(Records.view(tmp_path / name)) as records:
            assert verify(records).entries == found.total()
