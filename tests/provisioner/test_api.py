# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx
import pytest

from helexa.bus.service import Service
from helexa.process.health import Readiness
from helexa.process.http import serve_http
from helexa.process.settings import SocketAddress
from helexa.process.status import status_routes
from helexa.protocol import subjects
from helexa.protocol.errors import NotFoundError
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.models import ModelId
from helexa.protocol.messages.routing import (
    ExplainRequest,
    Explanation,
    RoutingDecision,
    Target,
)
from helexa.provisioner.api import make_app

from .conftest import MIB, Replica, Site, flushed, model

KEY = "sk-hx-test"
BODY = {"backend_kind": "fake", "capability": {"memory_bytes": 100 * MIB}}
QUIET = {**BODY, "policy": {"min_replicas": 0}}


@dataclass
class Desk:
    """An operator at the API."""

    site: Site
    replica: Replica
    http: httpx.AsyncClient

    async def put(self, name: str, body: Mapping[str, object]) -> httpx.Response:
        answer = await self.http.put(f"/api/models/{name}", json=body)
        if answer.is_success:
            catalogue = self.replica.provisioner.state.catalogue
            await self.replica.until(lambda: name in catalogue.models)
        return answer


@pytest.fixture
async def desk(site: Site) -> AsyncIterator[Desk]:
    replica = await site.replica()
    await replica.leads()
    readiness = Readiness()
    readiness.require("bus", lambda: replica.bus.is_connected)
    app = make_app(replica.provisioner, KEY, status_routes(readiness, replica.metrics))
    async with (
        serve_http(app, SocketAddress(host="127.0.0.1", port=0)) as listening,
        httpx.AsyncClient(
            base_url=listening.url, headers={"Authorization": f"Bearer {KEY}"}
        ) as http,
    ):
        yield Desk(site, replica, http)


def error_of(answer: httpx.Response) -> dict[str, str | None]:
    found: dict[str, str | None] = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["message"]
    return found


@pytest.mark.accepts("CX-17")
async def test_without_the_key_nothing_is_told_or_done(desk: Desk) -> None:
    for given in (b"", b"Bearer", b"Bearer wrong", b"Basic " + KEY.encode(), b"Bearer \xfc"):
        headers = {b"authorization": given} if given else {}
        async with httpx.AsyncClient(base_url=desk.http.base_url, headers=headers) as stranger:
            await refused_everywhere(stranger)


async def refused_everywhere(stranger: httpx.AsyncClient) -> None:
    for method, path in (
        ("GET", "/api/site"),
        ("GET", "/api/models"),
        ("PUT", "/api/models/m"),
        ("GET", "/running"),
        ("GET", "/nothing"),
    ):
        answer = await stranger.request(method, path)
        assert answer.status_code == 401, path
        assert error_of(answer)["type"] == "authentication_error"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/livez", "/readyz", "/health", "/metrics"):
        assert (await stranger.get(path)).status_code == 200


REFUSALS: tuple[tuple[str, str, bytes, int, str, str | None], ...] = (
    ("GET", "/api/nothing", b"", 404, "not_found", None),
    ("POST", "/api/site", b"", 405, "method_not_allowed", None),
    ("GET", "/api/models/none", b"", 404, "model_not_found", "model"),
    ("DELETE", "/api/models/none", b"", 404, "model_not_found", "model"),
    ("POST", "/api/models/none/load", b"", 404, "model_not_found", "model"),
    ("GET", "/api/models/none/load-status", b"", 404, "model_not_found", "model"),
    ("GET", "/api/neurons/none", b"", 404, "not_found", None),
    ("POST", "/api/neurons/none/drain", b"", 404, "not_found", None),
    ("DELETE", "/api/neurons/none", b"", 404, "not_found", None),
    ("PUT", "/api/models/m", b"{", 400, "bad_request", "body"),
    ("PUT", "/api/models/m", b"[]", 400, "bad_request", "body"),
    ("PUT", "/api/models/m", b"\xff\xfe", 400, "bad_request", "body"),
    ("PUT", "/api/models/m", b"{}", 400, "bad_request", "backend_kind"),
    ("PUT", "/api/models/m", b'{"backend_kind": ""}', 400, "bad_request", "backend_kind"),
    ("PUT", "/api/models/m", b'{"backend": "x"}', 400, "bad_request", "backend"),
    (
        "PUT",
        "/api/models/m",
        b'{"backend_kind": "x", "policy": {"min_replica": 1}}',
        400,
        "bad_request",
        "policy.min_replica",
    ),
    (
        "PUT",
        "/api/models/m",
        b'{"backend_kind": "x", "policy": {"min_replicas": -1}}',
        400,
        "bad_request",
        "policy.min_replicas",
    ),
    (
        "PUT",
        "/api/models/m",
        b'{"backend_kind": "x", "policy": {"min_replicas": 2, "max_replicas": 1}}',
        400,
        "bad_request",
        "policy.max_replicas",
    ),
    (
        "PUT",
        "/api/models/m",
        b'{"backend_kind": "x", "model": "n"}',
        400,
        "bad_request",
        "model",
    ),
    (
        "PUT",
        "/api/models/m",
        b'{"backend_kind": "x", "aliases": ["m"]}',
        400,
        "bad_request",
        "aliases",
    ),
    ("PUT", "/api/models/m", b" " * (1024**2 + 1), 413, "request_too_large", None),
    ("PUT", "/api/models/" + "m" * 256, b'{"backend_kind": "x"}', 400, "bad_request", "model"),
    ("GET", "/api/decisions?limit=0", b"", 400, "bad_request", "limit"),
    ("GET", "/api/why", b"", 400, "bad_request", "model"),
    ("POST", "/api/neurons/tokens", b'{"lasts_s": 0}', 400, "bad_request", "lasts_s"),
    ("POST", "/api/neurons/tokens", b"", 503, "unavailable", None),
)
"""Method, path, body; status, code, param."""


async def test_every_refusal_is_in_the_envelope(desk: Desk) -> None:
    for method, path, body, status, code, param in REFUSALS:
        answer = await desk.http.request(method, path, content=body)
        error = error_of(answer)
        found = (answer.status_code, error["code"], error["param"])
        assert found == (status, code, param), (method, path, body[:80])


async def test_a_field_that_is_misspelt_is_named_with_what_was_meant(desk: Desk) -> None:
    answer = await desk.put("m", {"backend_kind": "x", "alias": ["y"]})
    assert "did you mean 'aliases'?" in str(error_of(answer)["message"])


@pytest.mark.accepts("CX-17", "CX-9", "LAB-5")
async def test_a_model_is_added_loaded_changed_and_taken_out(desk: Desk) -> None:
    neuron = await desk.site.neuron("n1")
    added = await desk.put("org/model", BODY)
    assert added.status_code == 201
    assert added.json()["backend_kind"] == "fake"
    await neuron.until(lambda: neuron.loaded == {"org/model"})
    changed = await desk.put("org/model", {**BODY, "args": ["--fast"]})
    assert changed.status_code == 200
    await neuron.until(
        lambda: bool((now := neuron.held["org/model"].running) and now.args == ("--fast",))
    )
    await neuron.until(lambda: neuron.loaded == {"org/model"})
    removed = await desk.http.delete("/api/models/org/model")
    assert removed.status_code == 204
    await neuron.until(lambda: neuron.held == {})
    assert (await desk.http.get("/api/models/org/model")).status_code == 404


@pytest.mark.accepts("CX-4", "CX-17", "PR-5")
async def test_neurons_and_models_are_shown(desk: Desk) -> None:
    neuron = await desk.site.neuron("n.1", key="UKEY")
    await desk.put("m", {**BODY, "aliases": ["short"]})
    await neuron.until(lambda: neuron.loaded == {"m"})
    await desk.replica.until(lambda: _loaded(desk, "n.1", "m"))
    (shown,) = (await desk.http.get("/api/neurons")).json()["neurons"]
    assert shown == (await desk.http.get("/api/neurons/n.1")).json() | {"age_s": shown["age_s"]}
    assert (shown["id"], shown["health"], shown["draining"]) == ("n.1", "healthy", False)
    assert shown["descriptor"]["public_key"] == "UKEY"
    assert shown["hardware"]["memory_total_bytes"] == 1000 * MIB
    assert [(each["model"], each["state"]) for each in shown["models"]] == [("m", "loaded")]
    (listed,) = (await desk.http.get("/api/models")).json()["models"]
    assert listed == (await desk.http.get("/api/models/short")).json()
    assert (listed["id"], listed["state"]) == ("m", "loaded")
    assert listed["placement"]["neurons"] == ["n.1"]
    assert listed["plan"]["needs"] == "100 MiB (declared)"
    running = (await desk.http.get("/running")).json()["running"]
    assert [(each["model"], each["state"]) for each in running] == [("m", "ready")]
    site = (await desk.http.get("/api/site")).json()
    assert (site["neurons"], site["models"], site["leads"]) == (1, 1, True)


def _loaded(desk: Desk, neuron: str, name: str) -> bool:
    host = desk.replica.provisioner.state.registry.host(neuron)
    return host is not None and host.has_loaded(name)


@pytest.mark.accepts("LAB-5", "LAB-6", "CX-17")
async def test_a_model_is_loaded_and_unloaded_on_order(desk: Desk) -> None:
    neuron = await desk.site.neuron("n1")
    await desk.put("m", QUIET)
    ordered = await desk.http.post("/api/models/m/load")
    assert (ordered.status_code, ordered.json()["state"]) == (202, "loading")
    await neuron.until(lambda: neuron.loaded == {"m"})
    await desk.replica.until(lambda: _loaded(desk, "n1", "m"))
    again = await desk.http.post("/api/models/m/load")
    assert (again.status_code, again.json()["neurons"]) == (200, ["n1"])
    status = (await desk.http.get("/api/models/m/load-status")).json()
    assert (status["state"], status["replicas"][0]["neuron"]) == ("loaded", "n1")
    gone = await desk.http.post("/api/models/m/unload")
    assert gone.status_code == 202
    await neuron.until(lambda: neuron.loaded == set())
    assert neuron.loads == {"m": 1}


async def test_a_model_is_loaded_on_the_neuron_that_is_named(desk: Desk) -> None:
    await desk.site.neuron("large", memory=900 * MIB)
    small = await desk.site.neuron("small", memory=500 * MIB)
    await desk.put("m", QUIET)
    unknown = await desk.http.post("/api/models/m/load", json={"neuron": "none"})
    assert unknown.status_code == 404
    await desk.http.post("/api/models/m/load", json={"neuron": "small"})
    await small.until(lambda: small.loaded == {"m"})


async def test_everything_is_unloaded_at_once(desk: Desk) -> None:
    neuron = await desk.site.neuron("n1")
    await desk.put("a", BODY)
    await desk.put("b", BODY)
    await neuron.until(lambda: neuron.loaded == {"a", "b"})
    answer = await desk.http.post("/api/models/unload")
    assert answer.json() == {"unloading": ["a", "b"]}
    await neuron.until(lambda: neuron.loaded == set())


@pytest.mark.accepts("CX-13")
async def test_a_model_that_fits_nowhere_is_refused_with_the_reasons(desk: Desk) -> None:
    await desk.site.neuron("n1")
    await desk.put("huge", {**BODY, "capability": {"memory_bytes": 5000 * MIB}})
    answer = await desk.http.post("/api/models/huge/load")
    assert answer.status_code == 400
    assert "n1: needs 4.9 GiB (declared)" in str(error_of(answer)["message"])
    shown = (await desk.http.get("/api/models/huge")).json()
    assert shown["plan"]["impossible"] is True
    assert list(shown["plan"]["rejected"]) == ["n1"]


async def test_a_name_means_one_model(desk: Desk) -> None:
    await desk.put("m", {**QUIET, "aliases": ["gpt-4o"]})
    taken = await desk.put("gpt-4o", QUIET)
    assert taken.status_code == 409
    assert error_of(taken)["message"] == "gpt-4o already means m"
    assert (await desk.put("n", {**QUIET, "aliases": ["m"]})).status_code == 409
    assert (await desk.put("n", {**QUIET, "aliases": ["gpt-4o"]})).status_code == 409
    assert (await desk.put("m", {**QUIET, "aliases": ["gpt-4o", "x"]})).status_code == 200


async def test_a_neuron_is_drained_and_taken_back(desk: Desk) -> None:
    neuron = await desk.site.neuron("n1")
    answer = await desk.http.post("/api/neurons/n1/drain")
    assert answer.json() == {"id": "n1", "draining": True}
    assert neuron.draining
    await desk.http.post("/api/neurons/n1/drain", json={"draining": False})
    assert not neuron.draining


async def test_a_removed_neurons_id_is_free_again(desk: Desk) -> None:
    old = await desk.site.neuron("n1", key="UOLD")
    await old.vanish()
    assert (await desk.http.delete("/api/neurons/n1")).status_code == 204
    await desk.site.event(EventType.NEURON_REMOVED, neuron_id="n1")
    await desk.site.neuron("n1", key="UNEW")
    shown = (await desk.http.get("/api/neurons/n1")).json()
    assert shown["descriptor"]["public_key"] == "UNEW"


@pytest.mark.accepts("LAB-11", "CX-17")
async def test_decisions_are_kept_with_their_reasons(desk: Desk) -> None:
    neuron = await desk.site.neuron("n1", memory=150 * MIB)
    await desk.site.neuron("other", kinds="vllm")
    await desk.put("m", BODY)
    await neuron.until(lambda: neuron.loaded == {"m"})
    (decision,) = (await desk.http.get("/api/decisions?model=m&limit=5")).json()["decisions"]
    assert decision["neurons"] == ["n1"]
    assert decision["reasons"] == ["goes to n1: 1 of it wanted, 0 there"]
    assert decision["rejected"] == {"other": "cannot run 'fake', only vllm"}
    assert (await desk.http.get("/api/decisions?model=x")).json() == {"decisions": []}


@pytest.mark.accepts("NET-2", "LAB-11")
async def test_why_tells_the_routing_and_the_placement(desk: Desk) -> None:
    await desk.put("m", QUIET)
    without = (await desk.http.get("/api/why?model=m")).json()
    assert without["routing"]["code"] == "no_responders"

    async def explain(request: ExplainRequest) -> Explanation:
        if request.request_id == "unknown":
            raise NotFoundError
        target = Target(neuron_id="n1", score=0.5)
        decision = RoutingDecision(decision_id="d", model=ModelId("m"), targets=(target,))
        return Explanation(request_id=request.request_id, decision=decision, reason="idle")

    service = Service(desk.site.bus, "scheduler", instance="s", version="0")
    await service.serve(subjects.EXPLAIN, explain)
    await flushed(desk.site.bus)
    told = (await desk.http.get("/api/why?model=m")).json()
    assert told["routing"]["decision"]["targets"][0]["neuron_id"] == "n1"
    assert told["placement"]["wanted"] == 0
    assert told["decisions"] == []
    of_request = (await desk.http.get("/api/why?request=r-1")).json()
    assert of_request["routing"]["request_id"] == "r-1"
    assert (await desk.http.get("/api/why?request=unknown")).status_code == 404


@pytest.mark.accepts("PR-14")
async def test_the_schema_of_the_protocol_is_published(desk: Desk) -> None:
    found = (await desk.http.get("/api/schema")).json()
    assert found["protocol_version"] == 1
    by_subject = {call["subject"]: call for call in found["calls"]}
    assert by_subject["helexa.scheduler.schedule"]["reply"] == "RoutingDecision"
    for kind in ("RoutingDecision", "ModelConfig", "NeuronStatus", "ProvisionRequest"):
        assert found["definitions"][kind]["properties"]


@pytest.mark.accepts("UTL-2")
async def test_loads_and_leadership_are_counted(desk: Desk) -> None:
    neuron = await desk.site.neuron("n1")
    await desk.replica.put(model("m"))
    await neuron.until(lambda: neuron.loaded == {"m"})
    await desk.site.event(EventType.PROVISIONING_RESPONSE, state="ok", reason="load_model")
    text = (await desk.http.get("/metrics")).text
    assert 'helexa_provisioning_commands_total{command="load_model",outcome="ok"} 1.0' in text
    assert "helexa_model_load_seconds_count 1.0" in text
    assert "helexa_provisioner_neurons 1.0" in text
    assert "helexa_provisioner_leads 1.0" in text
