# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The state of the site as JSON."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from helexa.protocol import subjects
from helexa.protocol.messages.base import PROTOCOL_VERSION, AnyMessage
from helexa.protocol.messages.models import ModelConfig, ModelState
from helexa.protocol.schema import definitions
from helexa.provisioner.demand import Demand
from helexa.provisioner.hosts import Host, Plan
from helexa.provisioner.reconcile import State

Json = dict[str, object]

_MOST_TELLING = (
    ModelState.LOADED,
    ModelState.LOADING,
    ModelState.UNLOADING,
    ModelState.FAILED,
    ModelState.UNLOADED,
    ModelState.CONFIGURED,
)


def neuron_view(host: Host) -> Json:
    """Return a neuron as `GET /api/neurons` shows it."""
    status = host.status
    return {
        "id": host.neuron_id,
        "health": "healthy" if host.steady and status else "degraded",
        "age_s": round(host.age_s, 3),
        "draining": host.draining,
        "descriptor": host.descriptor.model_dump(mode="json", exclude={"hardware"}),
        "hardware": (status or host.descriptor).hardware.model_dump(mode="json"),
        "slots_total": status.slots_total if status else None,
        "slots_busy": status.slots_busy if status else None,
        "uptime_s": status.uptime_s if status else None,
        "models": _dump(status.models if status else ()),
    }


def model_view(
    state: State, config: ModelConfig, plan: Plan, hosts: Iterable[Host], demand: Demand
) -> Json:
    """Return a model as `GET /api/models` shows it."""
    entry = state.placements.get(config.model)
    replicas = replica_views(config.model, hosts)
    return {
        "id": str(config.model),
        "state": effective_state(replicas),
        "config": config.model_dump(mode="json"),
        "replicas": replicas,
        "placement": entry.value.model_dump(mode="json") if entry else None,
        "plan": {
            "neurons": plan.neurons,
            "wanted": plan.wanted,
            "needs": plan.needs,
            "rejected": plan.rejected,
            "impossible": plan.impossible,
        },
        "asked_for": demand.count(config.model),
    }


def replica_views(model: str, hosts: Iterable[Host]) -> list[Json]:
    """Return what each neuron reports of a model."""
    return [
        {
            "neuron": host.neuron_id,
            **found.model_dump(mode="json", exclude={"model", "capability", "price"}),
        }
        for host in hosts
        if (found := host.model(model))
    ]


def effective_state(replicas: Iterable[Mapping[str, object]]) -> str:
    """Return the state of a model over all neurons: the most telling one of its replicas."""
    states = {replica["state"] for replica in replicas}
    return next((state for state in _MOST_TELLING if state in states), ModelState.CONFIGURED)


def load_status(model: str, hosts: Iterable[Host]) -> Json:
    """Return how far the loading of a model is."""
    replicas = replica_views(model, hosts)
    steps = [replica["progress"] for replica in replicas]
    known = [step for step in steps if isinstance(step, int | float)]
    return {
        "model": model,
        "state": effective_state(replicas),
        "progress": max(known, default=None),
        "replicas": replicas,
    }


def running_view(hosts: Iterable[Host]) -> Json:
    """Return what is loaded or loading now."""
    return {
        "running": [
            {
                "model": str(found.model),
                "state": "ready" if found.state == ModelState.LOADED else found.state,
                "neuron": host.neuron_id,
                "slots_busy": found.slots_busy,
                "slots_total": found.slots_total,
            }
            for host in hosts
            for found in (host.status.models if host.status else ())
            if found.state in (ModelState.LOADED, ModelState.LOADING, ModelState.UNLOADING)
        ]
    }


def protocol_schema() -> Json:
    """Return the JSON schema of every message of the protocol, by the subjects they travel on."""
    kinds: dict[str, type[AnyMessage]] = {}
    calls, events = [], []
    for call in subjects.CALLS:
        kinds |= {kind.__name__: kind for kind in (call.request, call.reply)}
        calls.append(
            {
                "subject": call.subject,
                "request": call.request.__name__,
                "reply": call.reply.__name__,
                "server": str(call.server),
            }
        )
    for event in subjects.EVENTS:
        kinds[event.message.__name__] = event.message
        events.append({"subject": event.subject, "message": event.message.__name__})
    return {
        "protocol_version": PROTOCOL_VERSION,
        "calls": calls,
        "events": events,
        "definitions": definitions(kinds.values()),
    }


def _dump(values: Iterable[BaseModel]) -> list[Json]:
    return [value.model_dump(mode="json") for value in values]
