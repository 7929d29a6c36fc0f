# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The portal as a process: its page, over real HTTP and a real nats-server."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.ports import free_port

from helexa.bus.buckets import Bucket
from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.resources import Durability, ensure_resources
from helexa.portal.settings import PortalSettings
from helexa.process.settings import load_settings
from helexa.protocol import resources, subjects
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelState, ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.subjects import Role

LIMIT_S = 30


class Portal:
    """A portal process and where it serves."""

    def __init__(self, process: subprocess.Popen[str], urls: list[str]) -> None:
        self.process = process
        self.urls = urls


@contextmanager
def running(nats_url: str, home: Path, *, sockets: int = 1, **settings: str) -> Iterator[Portal]:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(sockets)]
    environment = {
        "PATH": os.defpath,
        "HELEXA_DATA_DIR": str(home),
        "HELEXA_NATS_URL": nats_url,
        "HELEXA_PORTAL_SOCKET": ",".join(addresses),
    }
    environment |= {f"HELEXA_PORTAL_{name}".upper(): text for name, text in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "helexa.portal"],
        env=environment,
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    served = 0
    while served < sockets:
        line = process.stderr.readline()
        assert line, "the portal ended"
        served += '"serving"' in line
    try:
        yield Portal(process, [f"http://{address}" for address in addresses])
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


@pytest.fixture
async def site(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(Connection(servers=(nats_url,), name="test")) as bus:
        await ensure_resources(bus, Role.PROVISIONER, Durability())
        yield bus


async def put_model(bus: Bus, name: str) -> None:
    config = ModelConfig(model=ModelId(name), backend_kind="llama_cpp", source="/secret/path.gguf")
    await Bucket(bus, resources.MODELS, ModelConfig).put(name, config)


async def page_with(client: httpx.AsyncClient, url: str, wanted: str) -> str:
    """Return the page once it says `wanted`."""
    text = ""
    async with asyncio.timeout(LIMIT_S):
        while wanted not in text:
            text = (await client.get(url)).text
    return text


@pytest.mark.accepts("CLI-5")
async def test_the_page_shows_models_and_how_to_connect(site: Bus, tmp_path: Path) -> None:
    await put_model(site, "page-<b>model")
    with running(site.connection.servers[0], tmp_path, site_name="A&B <site>") as portal:
        async with httpx.AsyncClient() as client:
            text = await page_with(client, portal.urls[0], "page-")

    assert "page-&lt;b&gt;model" in text
    assert "<h1>A&amp;B &lt;site&gt;</h1>" in text
    assert "Not loaded" in text
    assert "http://127.0.0.1:8080/v1" in text
    assert "secret" not in text
    assert "<script" not in text


async def test_the_page_follows_what_neurons_report(site: Bus, tmp_path: Path) -> None:
    await put_model(site, "followed")
    loaded = ModelStatus(model=ModelId("followed"), state=ModelState.LOADED, slots_total=1)
    status = NeuronStatus(neuron_id="n1", instance="i", sequence=1, models=(loaded,))
    with running(site.connection.servers[0], tmp_path) as portal:
        async with httpx.AsyncClient() as client, asyncio.timeout(LIMIT_S):
            text = ""
            while "Ready on 1 host" not in text:
                await site.publish(subjects.NEURON_STATUS, status, neuron="n1")
                text = (await client.get(portal.urls[0])).text

    assert "Serving" in text


@pytest.mark.accepts("CLI-5", "CX-2")
async def test_several_sockets_serve_the_page(site: Bus, tmp_path: Path) -> None:
    with running(site.connection.servers[0], tmp_path, sockets=2) as portal:
        async with httpx.AsyncClient() as client:
            answers = [await client.get(url) for url in portal.urls]

    assert [answer.status_code for answer in answers] == [200, 200]


async def test_answers_forbid_what_the_page_does_not_need(site: Bus, tmp_path: Path) -> None:
    with running(site.connection.servers[0], tmp_path) as portal:
        async with httpx.AsyncClient() as client:
            page = await client.get(portal.urls[0])
            style = await client.get(f"{portal.urls[0]}/style.css")
            missing = await client.get(f"{portal.urls[0]}/none")
            changing = await client.post(portal.urls[0])

    for answer in (page, style, missing):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"
    assert "prefers-color-scheme: dark" in style.text
    assert missing.status_code == 404
    assert changing.status_code == 405


async def test_a_host_header_cannot_write_into_the_page(site: Bus, tmp_path: Path) -> None:
    with running(site.connection.servers[0], tmp_path) as portal:
        async with httpx.AsyncClient() as client:
            answer = await client.get(portal.urls[0], headers={"host": 'x"><script>a</script>'})

    assert "<script" not in answer.text


async def test_a_portal_serves_before_its_site_does(tmp_path: Path) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"
    with running(nowhere, tmp_path) as portal:
        async with httpx.AsyncClient() as client:
            page = await client.get(portal.urls[0])
            ready = await client.get(f"{portal.urls[0]}/readyz")
            alive = await client.get(f"{portal.urls[0]}/livez")

    assert "Not connected to the site" in page.text
    assert (ready.status_code, alive.status_code) == (503, 200)


@pytest.mark.accepts("CX-27")
async def test_a_portal_stops_when_asked(site: Bus, tmp_path: Path) -> None:
    with running(site.connection.servers[0], tmp_path) as portal:
        portal.process.send_signal(signal.SIGTERM)

        assert await asyncio.to_thread(portal.process.wait, LIMIT_S) == 0


def test_a_socket_that_is_no_address_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "helexa.portal"],
        env={"HELEXA_PORTAL_SOCKET": "8091", "HELEXA_NATS_URL": "nats://127.0.0.1:1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )

    assert done.returncode == 2
    assert "'8091' is not HOST:PORT" in done.stderr.splitlines()[-1]


def test_sockets_may_be_given_as_a_list() -> None:
    settings = load_settings(PortalSettings, environment={"HELEXA_PORTAL_SOCKET": "h:1, g:2"})

    assert [str(address) for address in settings.values.addresses] == ["h:1", "g:2"]
