# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A founded site as processes: neurons are let in by the token that stands in a file."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.ports import free_port

from helexa.site.binary import find_server
from helexa.site.enrolment import EnrolledUsers, make_join_token, parse_join_token
from helexa.site.files import write_secret
from helexa.site.foundation import Servers, found_site
from helexa.site.keys import Identity

from .test_process import Child


@dataclass
class Founded:
    """A site whose files were made by `found_site`, with its server running."""

    path: Path
    url: str

    @property
    def token_file(self) -> Path:
        return self.path / "join" / "token"

    @property
    def users(self) -> EnrolledUsers:
        return EnrolledUsers.load(self.path / "nats" / "neurons.conf")

    @contextlib.asynccontextmanager
    async def child(self, module: str, **settings: str) -> AsyncIterator[Child]:
        child = await Child.start(module, NATS_URL=self.url, **settings)
        try:
            yield child
        finally:
            await child.stop()

    def provisioner(self) -> contextlib.AbstractAsyncContextManager[Child]:
        return self.child(
            "helexa.provisioner",
            HELEXA_DATA_DIR=str(self.path / "provisioner"),
            HELEXA_PROVISIONER_SOCKET="127.0.0.1:0",
            HELEXA_PROVISIONER_USERS_FILE=str(self.path / "nats" / "neurons.conf"),
            HELEXA_PROVISIONER_JOIN_TOKEN_FILE=str(self.token_file),
        )

    def neuron(self, name: str) -> contextlib.AbstractAsyncContextManager[Child]:
        return self.child(
            "helexa.neuron",
            HELEXA_DATA_DIR=str(self.path / name),
            HELEXA_NEURON_NODE_ID=name,
            HELEXA_NEURON_JOIN_TOKEN_FILE=str(self.token_file),
            HELEXA_NEURON_API_SOCKET="127.0.0.1:0",
        )


@pytest.fixture
async def founded(tmp_path: Path) -> AsyncIterator[Founded]:
    port = free_port()
    servers = Servers(
        ("nats",), tmp_path / "store", host="127.0.0.1", port=port, monitor_port=free_port()
    )
    found_site(tmp_path, servers)
    (tmp_path / "join").mkdir()
    log = (tmp_path / "nats.log").open("wb")
    server = await asyncio.create_subprocess_exec(
        find_server().path, "-c", tmp_path / "nats" / "nats.conf", stderr=log
    )
    try:
        yield Founded(tmp_path, f"nats://127.0.0.1:{port}")
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 20)
        log.close()


@pytest.mark.accepts("CX-7")
async def test_a_neuron_that_starts_first_waits_for_the_token_in_the_file(
    founded: Founded,
) -> None:
    async with founded.neuron("n1") as neuron:
        await neuron.line("not_enrolled")
        async with founded.provisioner() as provisioner:
            await provisioner.line("join_token_renewed")
            assert stat.S_IMODE(founded.token_file.stat().st_mode) == 0o600
            await neuron.line("enrolled")
            await neuron.line("joined")
    assert set(founded.users.neurons) == {"n1"}


async def test_a_token_that_is_still_good_is_kept_and_one_that_is_not_is_replaced(
    founded: Founded,
) -> None:
    async with founded.provisioner() as provisioner:
        await provisioner.line("join_token_renewed")
    first = founded.token_file.read_text()
    async with founded.provisioner() as provisioner, founded.neuron("n1") as neuron:
        await neuron.line("joined")
        assert founded.token_file.read_text() == first
    stale = make_join_token(Identity.generate().seed, [founded.url])
    write_secret(founded.token_file, stale + "\n")
    async with founded.provisioner() as provisioner:
        await provisioner.line("join_token_renewed")
        identity, urls = parse_join_token(founded.token_file.read_text())
        assert urls == (founded.url,)
        assert identity.public in founded.users.tokens
