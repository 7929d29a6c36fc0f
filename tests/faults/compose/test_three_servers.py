# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The site with three nats-servers: one may die, and chats go on."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from tests.faults.conftest import Record

from .stack import ANSWER, Load, Stack, chat, run, stack_up

SERVERS = ("nats-1", "nats-2", "nats-3")
WORKERS = 8


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_up(tmp_path_factory.mktemp("ha"), "docker/ha/compose.yaml") as up:
        yield up


def test_every_stream_is_kept_by_all_three_and_synced(stack: Stack) -> None:
    url = "http://127.0.0.1:8222/jsz?streams=true&config=true"
    for server in SERVERS:
        (name,) = stack.containers(server)
        found = json.loads(stack.sh(name, f"wget -q -O - '{url}'"))
        assert found["config"]["sync_always"]
        streams = [
            stream for account in found["account_details"] for stream in account["stream_detail"]
        ]
        assert {"TOKENS", "USAGE", "KV_models"} <= {stream["name"] for stream in streams}
        assert {stream["config"]["num_replicas"] for stream in streams} == {3}


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_dies_under_load_and_chats_go_on(
    stack: Stack, server: str, record: Record
) -> None:
    (name,) = stack.containers(server)
    async with stack.client(timeout_s=40) as client, Load(client).running(WORKERS) as load:
        await load.at_least(40)
        await asyncio.to_thread(run, "docker", "kill", name)
        await load.at_least(60)
        await asyncio.to_thread(stack, "up", "--detach", "--wait", "--no-recreate", server)
        await load.at_least(40)

    record(**load.row(f"compose: {server} of three kill -9"))
    # What was on its way through the server may end in one error each, and nothing later.
    assert len(load.failures) <= WORKERS, load.failures
    async with stack.client() as client:
        assert await chat(client) == ANSWER
