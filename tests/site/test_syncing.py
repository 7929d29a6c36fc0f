# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Broker, nats_server_binary
from typing_extensions import override

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError
from helexa.site.errors import NotDurableError
from helexa.site.syncing import require_sync_always

from .conftest import Site

LAZY = """
listen: "127.0.0.1:-1"
server_name: lazy
jetstream { store_dir: "%s" }
accounts { SYS { users: [{ user: system, password: system }] } }
system_account: SYS
no_auth_user: system
ports_file_dir: "%s"
"""


class LazyBroker(Broker):
    """A server as it is when nobody has told it to sync."""

    @override
    def start(self) -> None:
        file = self.directory / "lazy.conf"
        file.write_text(LAZY % (self.directory, self.directory))
        program = [nats_server_binary(), "-c", str(file)]
        self.process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
        self.port = int(self._await_ports()["nats"][0].rpartition(":")[2])


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[Broker]:
    made = LazyBroker(tmp_path)
    made.start()
    yield made
    made.stop()


async def test_the_servers_of_a_site_sync_always(site: Site) -> None:
    async with site.system() as system:
        await require_sync_always(system)


async def test_a_server_that_syncs_now_and_then_is_named(lazy: Broker) -> None:
    connection = Connection((lazy.url,), "test", inbox_prefix=subjects.SYSTEM_INBOX)
    async with Bus(connection) as system:
        await system.wait_connected()
        with pytest.raises(NotDurableError, match="lazy would lose"):
            await require_sync_always(system)


async def test_a_server_that_does_not_answer_is_not_taken_for_a_good_one(site: Site) -> None:
    async with site.system() as system:
        with pytest.raises(UnavailableError):
            await require_sync_always(system, expected=2, deadline_s=0.5)
