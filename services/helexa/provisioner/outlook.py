# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What somebody who waits for a model can be told."""

from helexa.protocol.errors import ModelFailedError, NoCapacityError
from helexa.protocol.messages.models import ModelState
from helexa.protocol.messages.provisioning import Ensured
from helexa.provisioner.hosts import Host, Plan
from helexa.provisioner.reconcile import State

RETRY_S = 5.0


def outlook(state: State, model: str) -> Ensured:
    """Return how it stands with `model`, which is in the catalogue.

    Raises:
        ModelFailedError: it has failed wherever it could be loaded, and rests.
        NoCapacityError: there is no room for it now, or no neuron.
    """
    hosts = state.registry.hosts()
    loaded = [host.neuron_id for host in hosts if _serves(host, model)]
    if loaded:
        return Ensured(state="loaded", neurons=tuple(loaded))
    loading = [host for host in hosts if _state(host, model) == ModelState.LOADING]
    if loading:
        steps = [found.progress for host in loading if (found := host.model(model))]
        return Ensured(
            state="loading",
            neurons=tuple(host.neuron_id for host in loading),
            progress=max((step for step in steps if step is not None), default=None),
        )
    plan = state.think()[model]
    if plan.neurons:
        return Ensured(state="loading", neurons=tuple(plan.neurons), reason="about to be loaded")
    if any(host.status is None for host in hosts):
        return Ensured(state="loading", reason="not every neuron has reported yet")
    if plan.impossible:
        return Ensured(state="impossible", reason=plan.why_not)
    raise _refusal(state, model, plan)


def _refusal(state: State, model: str, plan: Plan) -> ModelFailedError | NoCapacityError:
    if not plan.rejected:
        return NoCapacityError("no neuron has joined the site", retry_after_s=RETRY_S)
    failing = [
        failure
        for name in set(plan.rejected) - plan.lasting
        if (failure := state.wishes.backoff.of(name, model))
    ]
    if failing and len(failing) == len(set(plan.rejected) - plan.lasting):
        return ModelFailedError(f"{model} fails to load: {plan.why_not}", retry_after_s=RETRY_S)
    return NoCapacityError(f"no room for {model}: {plan.why_not}", retry_after_s=RETRY_S)


def _serves(host: Host, model: str) -> bool:
    found = host.model(model)
    return host.has_loaded(model) and found is not None and found.servable


def _state(host: Host, model: str) -> str | None:
    found = host.model(model)
    return found.state if found else None
