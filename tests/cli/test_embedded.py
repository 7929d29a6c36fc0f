# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The embedded nats-server keeps its port, and comes back when it dies."""

import asyncio
import os
import signal
from pathlib import Path

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.cli.embedded import EmbeddedServer, server_config
from helexa.cli.ports import free_address
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.config import ANY_PORT, LOOPBACK
from helexa.site.keys import Identity
from helexa.site.layout import DataDir, SiteFile

LIMIT_S = 30


def known(data: DataDir, url: str) -> None:
    data.create()
    SiteFile(name="home", pid=1, nats_urls=(url,)).save(data.site_file)


def test_a_new_site_takes_any_port_and_a_name_of_its_own(tmp_path: Path) -> None:
    first = server_config(DataDir(tmp_path / "a"), None)
    second = server_config(DataDir(tmp_path / "b"), None)

    assert (first.host, first.port) == (LOOPBACK, ANY_PORT)
    assert first.name != second.name


def test_a_site_keeps_its_name_and_its_port(tmp_path: Path) -> None:
    data, address = DataDir(tmp_path), free_address()
    known(data, f"nats://{address}")

    config = server_config(data, None)

    assert (config.name, config.port) == ("home", address.port)


def test_a_port_that_is_taken_meanwhile_is_given_up(tmp_path: Path, nats_url: str) -> None:
    data = DataDir(tmp_path)
    known(data, nats_url)

    assert server_config(data, None).port == ANY_PORT


def test_an_address_that_is_asked_for_wins(tmp_path: Path) -> None:
    data, asked = DataDir(tmp_path), free_address()
    known(data, "nats://127.0.0.1:1")

    assert server_config(data, asked).port == asked.port


async def test_a_server_that_is_killed_comes_back_on_its_port(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    back = asyncio.Event()

    async def note() -> None:
        back.set()

    with data.lock():
        async with EmbeddedServer(data, server_config(data, None)) as server:
            url = server.url
            keeping = asyncio.create_task(server.keep())
            seed = Identity.load(data.role_key(Role.ADMIN)).seed
            connection = Connection((url,), "test", seed, inbox_prefix(Role.ADMIN))
            async with Bus(connection) as bus:
                await asyncio.wait_for(bus.wait_connected(), LIMIT_S)
                bus.on_reconnected(note)
                os.kill(int((data.nats / "nats.pid").read_text()), signal.SIGKILL)
                await asyncio.wait_for(back.wait(), LIMIT_S)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

            assert server.url == url
