# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A neuron and its sites: presence, several sites, a link that breaks, the local API."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import Broker
from tests.faults.link import Link

from helexa.bus.client import Bus
from helexa.bus.service import Service
from helexa.neuron.api import LocalApi, local_app, local_routes
from helexa.neuron.control import Control
from helexa.neuron.identity import hold_identity, keep_node_id, load_identity, resolve_node_id
from helexa.neuron.joining import Site, parse_sites
from helexa.neuron.pace import Pace
from helexa.neuron.settings import NeuronSettings
from helexa.process.http import serve_http
from helexa.process.settings import SettingsError, SocketAddress, load_settings
from helexa.protocol import subjects
from helexa.protocol.control import NeuronControl
from helexa.protocol.errors import BusyError
from helexa.protocol.frames import FrameKind
from helexa.protocol.messages.models import ModelState
from helexa.protocol.messages.neurons import (
    Acknowledged,
    CapabilitiesRequest,
    Departure,
    HealthRequest,
    Registered,
    Registration,
    ShutdownNotice,
)
from helexa.protocol.messages.provisioning import LoadModel
from helexa.site.layout import DataDir

from .conftest import MODEL, PATIENCE_S, Rig, RigMaker, chunk, scripted


class Cortex:
    """Answers what a neuron tells its provisioner."""

    def __init__(self, bus: Bus, neuron: str) -> None:
        self.registrations: asyncio.Queue[Registration] = asyncio.Queue()
        self.departures: asyncio.Queue[Departure] = asyncio.Queue()
        self._neuron = neuron
        self._service = Service(bus, "provisioner", instance="test", version="0")

    async def serve(self) -> None:
        await self._service.serve(subjects.REGISTER, self._register, neuron=self._neuron)
        await self._service.serve(subjects.DEPART, self._depart, neuron=self._neuron)

    async def _register(self, message: Registration) -> Registered:
        self.registrations.put_nowait(message)
        return Registered()

    async def _depart(self, message: Departure) -> Acknowledged:
        self.departures.put_nowait(message)
        return Acknowledged()


@pytest.mark.accepts("NR-4", "NR-5", "NR-15", "NR-19", "PR-5")
async def test_a_neuron_registers_again_after_a_restart_and_says_goodbye(
    new_rig: RigMaker, broker: Broker
) -> None:
    async with new_rig({"home": broker.url}) as rig:
        cortex = Cortex(rig.gateway.bus, rig.gateway.token)
        await cortex.serve()
        await rig.gateway.load(scripted())
        await asyncio.wait_for(cortex.registrations.get(), PATIENCE_S)
        reconnected = asyncio.Event()

        async def note() -> None:
            reconnected.set()

        rig.gateway.bus.on_reconnected(note)
        broker.stop(kill=True)
        broker.start()
        await asyncio.wait_for(reconnected.wait(), PATIENCE_S)
        registration = await asyncio.wait_for(cortex.registrations.get(), PATIENCE_S)
        descriptor = registration.descriptor
        assert descriptor.neuron_id == rig.gateway.neuron_id
        assert descriptor.public_key.startswith("U")
        assert descriptor.backend_kinds == ("scripted",)
        assert [status.state for status in registration.status.models] == [ModelState.LOADED]
        seen = len(rig.gateway.statuses)
        await rig.gateway.until(lambda: len(rig.gateway.statuses) > seen)
        assert len(rig.runtimes.made) == 1
        await rig.node.end(0)
        departure = await asyncio.wait_for(cortex.departures.get(), PATIENCE_S)
        assert departure.instance == descriptor.instance
        await rig.gateway.until(lambda: rig.gateway.statuses[-1].draining)


@pytest.mark.accepts("NR-15")
async def test_frames_of_a_time_without_a_link_arrive_when_it_is_back(
    new_rig: RigMaker, nats_url: str
) -> None:
    pace = Pace(beat_interval_s=0.1)
    async with AsyncExitStack() as stack:
        # The gateway's own link holds, so that it hears whatever the neuron says again.
        link = await stack.enter_async_context(Link(urlsplit(nats_url).port or 0).relaying())
        ways = {"home": f"nats://127.0.0.1:{link.port}"}
        rig = await stack.enter_async_context(new_rig({"home": nats_url}, pace=pace, ways=ways))
        await rig.gateway.load(scripted())
        request = rig.gateway.request()
        await rig.gateway.execute(request)
        script = await rig.runtimes.script()
        script.say(chunk("before"))
        await rig.gateway.until(
            lambda: any(f.kind == FrameKind.DATA for f in rig.gateway.frames(request))
        )
        link.cut()
        script.say(chunk("between"))
        script.answer("after")
        await asyncio.wait_for(script.closed.wait(), PATIENCE_S)
        link.heal()
        frames = await rig.gateway.ended(request)
        text = b"".join(bytes(str(frame.payload), "utf-8") for frame in frames)
        assert all(word in text for word in (b"before", b"between", b"after"))
        assert {frame.seq for frame in frames} == set(range(max(f.seq for f in frames) + 1))


@pytest.mark.accepts("NR-18")
async def test_reports_come_at_the_interval_and_after_each_change(rig: Rig) -> None:
    first = len(rig.gateway.statuses)
    await rig.gateway.until(lambda: len(rig.gateway.statuses) >= first + 2)
    sequences = [status.sequence for status in rig.gateway.statuses]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    began_s = time.monotonic()
    await rig.gateway.execute(rig.gateway.request())
    await rig.gateway.until(lambda: rig.gateway.statuses[-1].slots_busy == 1)
    assert time.monotonic() - began_s < 0.5
    await rig.gateway.until(lambda: rig.gateway.statuses[-1].hardware.memory_total_bytes > 0)


@pytest.mark.accepts("NR-13")
async def test_health_is_told_in_time_while_every_slot_is_busy(rig: Rig) -> None:
    running = [rig.gateway.request() for _ in range(2)]
    for request in running:
        await rig.gateway.execute(request)
        script = await rig.runtimes.script()
        for number in range(500):
            script.say(chunk(str(number)))
    slowest_s = 0.0
    for _ in range(10):
        began_s = time.monotonic()
        health = await rig.gateway.bus.request(
            subjects.HEALTH, HealthRequest(), deadline_s=1, neuron=rig.gateway.token
        )
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert health.healthy
    assert slowest_s < 0.1


@pytest.mark.accepts("PR-9", "NR-4", "PR-2")
async def test_the_agent_and_the_wire_answer_alike(rig: Rig) -> None:
    agent: NeuronControl = rig.link.agent
    told = await rig.gateway.bus.request(
        subjects.CAPABILITIES,
        CapabilitiesRequest(),
        deadline_s=PATIENCE_S,
        neuron=rig.gateway.token,
    )
    own = await agent.announce_capabilities()
    assert told.models == own.models
    assert told.descriptor.neuron_id == own.descriptor.neuron_id
    assert told.models[MODEL].max_context_tokens == 4096
    over_the_wire = await rig.gateway.order(LoadModel(model=MODEL))
    assert (await agent.load_model(MODEL)).outcome == over_the_wire
    request = rig.gateway.request()
    assert await agent.execute_request(request) == await rig.gateway.execute(request)
    health = await rig.gateway.bus.request(
        subjects.HEALTH, HealthRequest(), deadline_s=PATIENCE_S, neuron=rig.gateway.token
    )
    mine = await agent.report_health()
    assert (health.healthy, health.impaired_models) == (mine.healthy, mine.impaired_models)
    assert [m.state for m in health.status.models] == [m.state for m in mine.status.models]


@pytest.mark.accepts("NR-1")
async def test_two_sites_share_one_pool_of_slots(
    new_rig: RigMaker, nats_url: str, broker: Broker
) -> None:
    async with new_rig({"home": nats_url, "work": broker.url}, slots=3) as rig:
        home, work = rig.gateways["home"], rig.gateways["work"]
        await home.load(scripted(slots=4))
        await work.until(lambda: any(m.state == "loaded" for m in work.statuses[-1].models))
        taken = []
        refused = 0
        for number in range(6):
            gateway = (home, work)[number % 2]
            request = gateway.request()
            try:
                await gateway.execute(request)
            except BusyError:
                refused += 1
            else:
                taken.append((gateway, request))
        assert (len(taken), refused) == (3, 3)
        for gateway, request in taken:
            (await rig.runtimes.script()).answer("yes")
            assert (await gateway.ended(request))[-1].kind == FrameKind.DONE
        for gateway in (home, work):
            await gateway.reported(lambda status: status.slots_busy == 0)
            assert gateway.statuses[-1].slots_total == 3


@pytest.mark.accepts("NR-14")
async def test_a_stopping_neuron_finishes_what_it_can_and_ends_the_rest(
    new_rig: RigMaker, nats_url: str
) -> None:
    async with new_rig({"home": nats_url}) as rig:
        await rig.gateway.load(scripted())
        quick, slow = rig.gateway.request(), rig.gateway.request()
        for request in (quick, slow):
            await rig.gateway.execute(request)
        (await rig.runtimes.script()).answer("done")
        await rig.node.end(0.2)
        assert (await rig.gateway.ended(quick))[-1].kind == FrameKind.DONE
        last = (await rig.gateway.ended(slow))[-1]
        assert isinstance(last.payload[0], dict)
        assert last.payload[0]["code"] == "shutting_down"
        assert rig.runtimes.made[0].is_stopped


async def test_a_notice_of_the_cortex_changes_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.gateway.bus.publish(subjects.NOTICE, ShutdownNotice(reason="upgrade"))
    seen = len(rig.gateway.statuses)
    await rig.gateway.until(lambda: len(rig.gateway.statuses) > seen)
    assert "cortex_stops" in caplog.messages
    assert rig.gateway.statuses[-1].models[0].state == ModelState.LOADED


async def test_the_numbers_tell_of_requests_tokens_and_states(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    (await rig.runtimes.script()).answer("a", "b")
    await rig.gateway.ended(request)
    report = rig.node.metrics.report(1.0)
    assert report.counters[f'helexa_neuron_requests_total{{code="done",model="{MODEL}"}}'] == 1
    assert report.counters[f'helexa_neuron_tokens_total{{model="{MODEL}",type="output"}}'] == 2
    assert report.gauges[f'helexa_model_state{{model="{MODEL}",state="loaded"}}'] == 1
    assert report.gauges["helexa_slots"] == 2
    first = report.histograms[f'helexa_neuron_time_to_first_token_seconds{{model="{MODEL}"}}']
    assert first.count == 1


@pytest.mark.accepts("NR-9", "PORT-6")
async def test_the_local_api_answers_streamed_and_whole(rig: Rig) -> None:
    app = local_app(local_routes(LocalApi(rig.node.presence)))
    async with (
        serve_http(app, SocketAddress(host="127.0.0.1", port=0)) as served,
        httpx.AsyncClient(base_url=served.url) as client,
    ):
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        whole = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        (await rig.runtimes.script()).answer("He", "llo")
        answer = (await whole).json()
        assert json.loads(rig.runtimes.bodies[-1])["stream"] is True
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"]["content"] == "Hello"
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == 2
        async with client.stream(
            "POST", "/v1/chat/completions", json=body | {"stream": True}
        ) as streamed:
            script = await rig.runtimes.script()
            script.say(chunk("first"))
            lines = streamed.aiter_lines()
            assert "first" in await anext(lines)
            script.answer("rest")
            assert [line async for line in lines if line][-1] == "data: [DONE]"
        vectors = await client.post("/v1/embeddings", json={"model": MODEL, "input": "a"})
        assert vectors.json()["object"] == "list"
        listed = (await client.get("/v1/models")).json()
        assert [one["id"] for one in listed["data"]] == [MODEL]
        assert (await client.get("/models")).json()["models"][0]["state"] == "loaded"
    assert rig.node.presence.host.slots.busy == 0


async def test_a_local_client_that_leaves_stops_the_backend(rig: Rig) -> None:
    app = local_app(local_routes(LocalApi(rig.node.presence)))
    async with (
        serve_http(app, SocketAddress(host="127.0.0.1", port=0)) as served,
        httpx.AsyncClient(base_url=served.url) as client,
    ):
        body = {"model": MODEL, "messages": [], "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as streamed:
            script = await rig.runtimes.script()
            script.say(chunk("first"))
            await anext(streamed.aiter_lines())
        await asyncio.wait_for(script.closed.wait(), PATIENCE_S)
    assert rig.node.presence.host.slots.busy == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"not json", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b'{"model": 3}', 400, "bad_request"),
        (b'{"model": "nobody"}', 404, "model_not_found"),
    ],
)
async def test_the_local_api_refuses_in_the_usual_envelope(
    rig: Rig, body: bytes, status: int, code: str
) -> None:
    app = local_app(local_routes(LocalApi(rig.node.presence)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/v1/chat/completions", content=body)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert (await client.get("/nowhere")).json()["error"]["type"] == "invalid_request_error"
    async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as client:
        assert (await client.get("/v1/models")).status_code == 400


async def test_a_full_host_is_said_with_the_time_to_come_back(rig: Rig) -> None:
    for _ in range(2):
        await rig.gateway.execute(rig.gateway.request())
    app = local_app(local_routes(LocalApi(rig.node.presence)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/v1/chat/completions", json={"model": MODEL, "messages": []})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_the_control_endpoint_wants_the_site_key(rig: Rig) -> None:
    control = Control(rig.node.presence, rig.node.links.values, "sk-hx-secret")
    transport = httpx.ASGITransport(local_app(control.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/status")).status_code == 401
        wrong = {"Authorization": "Bearer sk-hx-wrong"}
        assert (await client.post("/drain", headers=wrong)).status_code == 401
        right = {"Authorization": "Bearer sk-hx-secret"}
        assert (await client.post("/drain", headers=right)).json() == {"draining": True}
        await rig.gateway.until(lambda: rig.gateway.statuses[-1].draining)


@pytest.mark.accepts("NR-6")
def test_the_id_is_given_or_kept_or_the_machines(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    machine = tmp_path / "machine-id"
    with pytest.raises(SettingsError, match="--node-id"):
        resolve_node_id(None, data, machine)
    machine.write_text("abc123\n")
    assert resolve_node_id(None, data, machine) == "abc123"
    keep_node_id("kept one", data)
    assert resolve_node_id(None, data, machine) == "kept one"
    assert resolve_node_id("given", data, machine) == "given"
    keep_node_id("second", data)
    with pytest.raises(SettingsError, match="several"):
        resolve_node_id(None, data, machine)
    with pytest.raises(SettingsError, match="reserved"):
        resolve_node_id("ctl", data, machine)


@pytest.mark.accepts("NR-6")
def test_where_nothing_names_the_machine_a_new_id_is_made_and_kept(tmp_path: Path) -> None:
    nothing = tmp_path / "machine-id"
    first = resolve_node_id(None, DataDir(tmp_path / "one"), nothing, may_mint=True)
    other = resolve_node_id(None, DataDir(tmp_path / "two"), nothing, may_mint=True)

    assert first != other
    assert resolve_node_id(None, DataDir(tmp_path / "one"), nothing, may_mint=True) == first
    assert resolve_node_id(None, DataDir(tmp_path / "one"), nothing) == first


def test_an_id_has_one_key_and_one_process(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    made = load_identity("a", data)
    assert load_identity("a", data).public == made.public
    assert load_identity("b", data).public != made.public
    assert data.neuron_key("a").stat().st_mode & 0o777 == 0o600
    with (
        hold_identity("a", data),
        hold_identity("b", data),
        pytest.raises(SettingsError, match="another process"),
        hold_identity("a", data),
    ):
        pass


def test_sites_are_read_from_flags_and_from_the_environment() -> None:
    variables = {"HELEXA_NEURON_SITE": "home=nats://a:1,nats://b:2,work=tls://c:3"}
    settings = load_settings(NeuronSettings, environment=variables).values
    home = Site("home", ("nats://a:1", "nats://b:2"))
    work = Site("work", ("tls://c:3",))
    assert parse_sites(settings.site) == (home, work)
    assert parse_sites(("home=nats://a:1,nats://b:2", "work=tls://c:3")) == (home, work)
    for wrong in (("nats://a:1",), ("a=nats://x:1", "a=nats://y:1"), ("a b=nats://x:1",)):
        with pytest.raises(SettingsError, match="--site"):
            parse_sites(wrong)


async def test_a_registration_that_nobody_took_is_repeated_soon(rig: Rig) -> None:
    cortex = Cortex(rig.gateway.bus, rig.gateway.token)
    await cortex.serve()
    registration = await asyncio.wait_for(cortex.registrations.get(), 5)
    assert registration.descriptor.neuron_id == rig.gateway.neuron_id
