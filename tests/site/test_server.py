# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helexa.protocol import subjects
from helexa.protocol.subjects import Role
from helexa.site.binary import ServerBinary
from helexa.site.config import SiteConfig
from helexa.site.errors import ServerStartError
from helexa.site.layout import DataDir
from helexa.site.server import NatsServer, environment

from .conftest import NewSite, Site

RUN = """
import asyncio, sys
from pathlib import Path
import uvloop
from helexa.site.binary import find_server
from helexa.site.config import ANY_PORT, SiteConfig
from helexa.site.layout import DataDir
from helexa.site.server import NatsServer

async def run():
    config = SiteConfig("child", port=ANY_PORT)
    async with NatsServer(find_server(), DataDir(Path(sys.argv[1])), config) as server:
        print(server.pid, flush=True)
        await server.wait()

uvloop.run(run())
"""


def server_at(binary: ServerBinary, path: Path, *, port: int = -1) -> NatsServer:
    return NatsServer(binary, DataDir(path), SiteConfig("test", port=port))


async def failure(server: NatsServer) -> str:
    with pytest.raises(ServerStartError) as failed:
        await server.__aenter__()
    return str(failed.value)


def test_a_server_leaves_cores_to_the_services_of_its_site() -> None:
    assert [environment({}, cores)["GOMAXPROCS"] for cores in (1, 2, 16)] == ["1", "1", "4"]


def test_how_many_cores_a_server_takes_can_be_said() -> None:
    assert environment({"GOMAXPROCS": "3"}, 16) == {"GOMAXPROCS": "3"}


async def test_whatever_is_acknowledged_is_on_disk(site: Site) -> None:
    async with site.system() as bus:
        answer = await bus.client.request(subjects.SERVER_PING_JETSTREAM, b"", timeout=5)

    config = json.loads(answer.data)["data"]["config"]
    assert config["sync_always"] is True
    assert config["domain"] == "test"


async def test_a_large_request_fits_one_message(site: Site) -> None:
    async with site.bus(Role.GATEWAY) as bus:
        assert bus.client.max_payload == 8 * 1024 * 1024


async def test_a_stopped_server_leaves_cleanly(binary: ServerBinary, tmp_path: Path) -> None:
    async with server_at(binary, tmp_path) as server:
        pid = server.pid

    assert await server.wait() == 0
    assert not list((tmp_path / "nats").glob("*.ports"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_server_that_does_not_leave_is_killed(binary: ServerBinary, tmp_path: Path) -> None:
    async with server_at(binary, tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        await server.stop(within_s=0.05)

        assert await server.wait() == -signal.SIGKILL


async def test_a_server_that_ends_is_noticed(binary: ServerBinary, tmp_path: Path) -> None:
    async with server_at(binary, tmp_path) as server:
        ended = asyncio.create_task(server.wait())
        os.kill(server.pid, signal.SIGKILL)

        assert await asyncio.wait_for(ended, 5) == -signal.SIGKILL


async def test_a_server_comes_back_with_its_data(new_site: NewSite, tmp_path: Path) -> None:
    async with new_site(tmp_path) as site, site.bus(Role.PROVISIONER) as bus:
        await bus.jetstream.add_stream(name="EVENTS", subjects=[subjects.ALL_EVENTS])
        await bus.jetstream.publish("helexa.event.provisioner.seen", b"kept")

    async with new_site(tmp_path) as site, site.bus(Role.PROVISIONER) as bus:
        found = await bus.jetstream.get_last_msg("EVENTS", "helexa.event.provisioner.seen")

    assert found.data == b"kept"


async def test_a_taken_port_is_named(binary: ServerBinary, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        said = await failure(server_at(binary, tmp_path, port=port))

    assert said == (f"Port {port} on 127.0.0.1 is taken; stop what uses it or choose another port.")


async def test_an_address_of_another_machine_is_named(binary: ServerBinary, tmp_path: Path) -> None:
    server = NatsServer(binary, DataDir(tmp_path), SiteConfig("test", host="203.0.113.9", port=-1))

    assert await failure(server) == (
        "203.0.113.9 is not an address of this machine; choose another one to listen on."
    )


async def test_a_store_that_cannot_be_one_is_named(binary: ServerBinary, tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.create()
    data.jetstream.write_text("not a directory")

    said = await failure(server_at(binary, tmp_path))

    assert said.startswith("nats-server did not start: Can't start JetStream:")
    assert said.endswith(f"(see {data.places.log_file}).")


async def test_a_damaged_stream_is_not_passed_over(new_site: NewSite, tmp_path: Path) -> None:
    async with new_site(tmp_path) as site, site.bus(Role.PROVISIONER) as bus:
        await bus.jetstream.add_stream(name="EVENTS", subjects=[subjects.ALL_EVENTS])
        data = site.data
    (described,) = data.jetstream.glob("*/streams/EVENTS/meta.inf")
    described.write_text("{}")

    with pytest.raises(ServerStartError) as failed:
        async with new_site(tmp_path):
            pass

    said = str(failed.value)
    assert said.startswith(f"The store {data.jetstream} is damaged (Stream metafile ")
    assert str(described) in said


async def test_a_configuration_that_is_refused_is_quoted(
    binary: ServerBinary, tmp_path: Path
) -> None:
    said = await failure(NatsServer(binary, DataDir(tmp_path), SiteConfig("has space", port=-1)))

    assert said.startswith("nats-server did not start: ")
    assert "space" in said or "domain" in said


async def test_all_interfaces_are_reached_by_loopback(binary: ServerBinary, tmp_path: Path) -> None:
    config = SiteConfig("test", host="0.0.0.0", port=-1)
    async with NatsServer(binary, DataDir(tmp_path), config) as server:
        assert server.url.startswith("nats://127.0.0.1:")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_dies_with_its_parent(tmp_path: Path, sent: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(sent)
            ended, _, _ = select.select([server], [], [], 10)
        finally:
            os.close(server)

    assert ended


def test_ctrl_c_reaches_the_parent_alone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())

        assert os.getpgid(pid) != os.getpgid(parent.pid)
        parent.terminate()
