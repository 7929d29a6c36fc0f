# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One site under `docker compose up`: it starts, keeps its keys apart, and scales under load."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import AuthenticationError
from tests.faults.conftest import Record

from .stack import ANSWER, Load, Stack, chat, neuron_elsewhere, run, stack_up, with_files

PROCESSES = ("gateway", "scheduler", "provisioner", "portal", "neuron")
CONTAINERS = (*PROCESSES, "nats", "edge")
OWNER = "10001"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this file, which run in their order."""
    with stack_up(tmp_path_factory.mktemp("stack")) as up:
        yield up


@pytest.mark.accepts("DEP-2")
async def test_a_chat_through_the_published_port_right_after_the_start(stack: Stack) -> None:
    async with stack.client() as client:
        assert await chat(client) == ANSWER
        assert await chat(client, is_stream=True) == ANSWER
        with pytest.raises(AuthenticationError):
            await chat(client.with_options(api_key="sk-hx-wrong"))
    page = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{stack.portal_port}/")
    assert page.status_code == 200
    assert f"http://127.0.0.1:{stack.port}/v1" in page.text


async def test_a_second_start_keeps_the_keys_and_every_process(stack: Stack) -> None:
    def ids() -> dict[str, str]:
        names = [name for service in CONTAINERS for name in stack.containers(service)]
        return {name: str(stack.inspect(name)["State"]["StartedAt"]) for name in names}

    before, key = ids(), stack.key
    stack("up", "--detach", "--wait")

    assert ids() == before
    log = stack("logs", "init")
    assert log.count(key) == 1
    assert log.count(f"http://127.0.0.1:{stack.port}/v1") == 2
    async with stack.client() as client:
        assert await chat(client) == ANSWER


def test_the_key_can_be_read_again(stack: Stack) -> None:
    (gateway,) = stack.containers("gateway")
    kept = stack.sh(gateway, "cat /var/lib/helexa/secrets/gateway.key")
    assert kept.strip() == stack.key


def test_no_container_can_do_more_than_it_needs(stack: Stack) -> None:
    for service in CONTAINERS:
        for name in stack.containers(service):
            found = stack.inspect(name)
            host = found["HostConfig"]
            assert found["Config"]["User"] == f"{OWNER}:{OWNER}", service
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert host["SecurityOpt"] == ["no-new-privileges:true"], service
            assert host["Init"], service
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
            assert host["Memory"] > 0, service
            assert host["NanoCpus"] > 0, service
            assert host["PidsLimit"] > 0, service
            assert found["State"]["Health"]["Status"] == "healthy", service
            assert found["Config"]["StopTimeout"] > 20, service


def test_only_the_edge_is_published_and_the_site_reaches_nothing_outside(stack: Stack) -> None:
    for service in CONTAINERS:
        for name in stack.containers(service):
            published = {
                binding["HostPort"]
                for bindings in stack.inspect(name)["NetworkSettings"]["Ports"].values()
                for binding in bindings or ()
            }
            ports = {str(stack.port), str(stack.portal_port)} if service == "edge" else set()
            assert published == ports, service
    network = json.loads(run("docker", "network", "inspect", f"{stack.project}_site"))
    assert network[0]["Internal"]


def test_each_container_can_read_only_what_is_its_own(stack: Stack) -> None:
    seen = {
        "gateway": {"gateway.nk", "gateway.key"},
        "scheduler": {"scheduler.nk"},
        "provisioner": {"provisioner.nk", "system.nk", "orchestrator.key", "token"},
        "portal": {"portal.nk"},
        "neuron": {"neuron.nk", "token"},
        "nats": set(),
        "edge": set(),
    }
    script = (
        "for f in $(find / -xdev -type f 2>/dev/null; find /site /var/lib/helexa -type f); do"
        " case $f in *.nk|*.key|*/token) [ -r $f ] && stat -c '%n %a %u' $f;; esac; done; true"
    )
    for service, expected in seen.items():
        for name in stack.containers(service):
            rows = [
                line.split()
                for line in stack.sh(name, script).splitlines()
                if line.startswith(("/site/", "/var/lib/helexa/"))
            ]
            assert {Path(path).name for path, _, _ in rows} == expected, service
            assert {(mode, owner) for _, mode, owner in rows} <= {("600", OWNER)}, service


@pytest.mark.accepts("DEP-6")
async def test_a_scaled_site_answers_500_chats_at_once(stack: Stack, record: Record) -> None:
    await stack.scale(gateway=2, scheduler=2, provisioner=2, neuron=3)

    async with stack.client() as client:
        answers = await asyncio.gather(
            *(chat(client, is_stream=number % 2 == 0) for number in range(500))
        )

    record(case="compose: 500 chats at once", requests=500, answers=answers.count(ANSWER))
    assert set(answers) == {ANSWER}


async def test_each_replica_of_a_neuron_has_an_id_and_a_key_of_its_own(stack: Stack) -> None:
    script = "cat /var/lib/helexa/neurons/*/node-id /var/lib/helexa/neurons/*/neuron.nk"
    await stack.scale(neuron=3)
    found = [stack.sh(name, script).split() for name in stack.containers("neuron")]
    assert len({tuple(pair) for pair in found}) == 3
    first = stack.containers("neuron")[0]

    await asyncio.to_thread(run, "docker", "restart", first)
    await stack.scale(neuron=3)

    assert stack.sh(first, script).split() in found


async def test_gateways_come_and_go_under_load_and_nothing_is_lost(
    stack: Stack, record: Record
) -> None:
    await stack.scale(gateway=1)
    async with stack.client() as client, Load(client).running(12) as load:
        await load.at_least(50)
        await stack.scale(gateway=4)
        await load.at_least(100)
        await stack.scale(gateway=2)
        await load.at_least(100)

    record(**load.row("compose: 1 -> 4 -> 2 gateways"))
    assert load.failures == []


async def test_neurons_come_and_go_under_load_and_nothing_is_lost(
    stack: Stack, record: Record
) -> None:
    await stack.scale(neuron=1)
    async with stack.client() as client, Load(client).running(12) as load:
        await load.at_least(50)
        await stack.scale(neuron=3)
        await load.at_least(100)
        await stack.scale(neuron=1)
        await load.at_least(100)

    record(**load.row("compose: 1 -> 3 -> 1 neurons"))
    assert load.failures == []


async def test_without_a_gateway_the_edge_says_so_at_once(stack: Stack) -> None:
    await asyncio.to_thread(stack, "stop", "gateway")

    async with httpx.AsyncClient(base_url=stack.url) as http:
        refused = await http.post("/chat/completions", json={}, timeout=10)
    await asyncio.to_thread(stack, "up", "--detach", "--wait", "--no-recreate", "gateway")

    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/json"
    assert int(refused.headers["retry-after"]) > 0
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "unavailable", None)
    async with stack.client() as client:
        assert await chat(client) == ANSWER


async def test_a_client_that_leaves_ends_the_work(stack: Stack) -> None:
    body = {
        "model": "helexa-tiny",
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": 1900,
        "ignore_eos": True,
    }
    headers = {"authorization": f"Bearer {stack.key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/chat/completions", json=body, timeout=0.2)

    await stack.says("neuron", '"outcome":"cancelled"')


async def test_gateways_that_are_killed_cost_only_what_they_had(
    stack: Stack, record: Record
) -> None:
    await stack.scale(gateway=3)
    async with stack.client() as client, Load(client).running(12) as load:
        await load.at_least(30)
        await asyncio.to_thread(run, "docker", "kill", *stack.containers("gateway")[:2])
        await load.at_least(100)
        await stack.scale(gateway=3)
        await load.at_least(30)

    record(**load.row("compose: two of three gateways kill -9"))
    assert len(load.failures) <= 12, load.failures
    assert not [failure for failure in load.failures if "No gateway" in failure]


@pytest.mark.accepts("RM-15")
async def test_keys_are_renewed_and_the_old_ones_are_of_no_use(stack: Stack) -> None:
    old = stack.key
    (new,) = [
        line.split()[-1]
        for line in (await asyncio.to_thread(stack.renew, "api-key")).splitlines()
        if "API key" in line
    ]
    assert "API key" not in await asyncio.to_thread(stack.renew, "gateway")

    await asyncio.to_thread(stack, "kill", "--signal", "HUP", "nats")
    await asyncio.to_thread(stack, "restart", "gateway")
    await asyncio.to_thread(stack, "up", "--detach", "--wait", "--no-recreate", "gateway")

    async with stack.client() as client:
        assert await chat(client.with_options(api_key=new)) == ANSWER
        with pytest.raises(AuthenticationError):
            await chat(client.with_options(api_key=old))
    (gateway,) = stack.containers("gateway")
    kept = stack.sh(gateway, "cat /var/lib/helexa/secrets/gateway.key")
    await asyncio.to_thread(stack.renew, "")
    stack.given_key = kept.strip()
    async with stack.client() as client:
        assert await chat(client) == ANSWER


@pytest.mark.accepts("DEP-2")
async def test_a_neuron_on_another_network_joins_by_a_token(stack: Stack, tmp_path: Path) -> None:
    published = with_files(stack, tmp_path, "docker/publish-nats.yaml")
    await asyncio.to_thread(published, "up", "--detach", "--wait", "--no-deps", "nats")
    address = f"nats://host.docker.internal:{stack.nats_port}"
    token = await asyncio.to_thread(stack.cli, "neuron", "token", "--nats-url", address)
    await asyncio.to_thread(stack, "stop", "neuron")

    with neuron_elsewhere(stack, token) as container:
        async with stack.client() as client:
            assert await chat(client) == ANSWER
        name = stack.sh(container, "cat /var/lib/helexa/neurons/*/node-id").strip()
        assert name in await asyncio.to_thread(stack.cli, "neuron", "inspect")
