# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Notices that a long command has ended although its answer never came.

A load takes minutes. A server that restarts meanwhile loses the answer, and a neuron that restarts
will never give one; what neurons report says how it went.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helexa.protocol.errors import NoRespondersError
from helexa.protocol.messages.models import ModelId, ModelState
from helexa.protocol.messages.provisioning import (
    ProvisioningError,
    ProvisioningOk,
    ProvisioningOutcome,
    ProvisioningResponse,
)
from helexa.provisioner.hosts import Host

LOOK_S = 1.0
SURE_AFTER = 3
"""Looks in a row that have to agree: an answer may be a little later than a report."""

Look = Callable[[], Host | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a command is to bring about on a neuron."""

    model: ModelId
    loaded: bool
    digest: str = ""
    """Of the configuration that shall be in use."""


async def answer_or_report(
    asked: Awaitable[ProvisioningResponse], goal: Goal, look: Look
) -> ProvisioningResponse:
    """Return the answer to a command, or what the neuron's reports say in its place.

    Raises:
        NoRespondersError: the neuron is gone, or has been started again.
        HelexaError: what asking raises.
    """
    answer = asyncio.ensure_future(asked)
    host = look()
    instance = host.descriptor.instance if host else ""
    was_loading = False
    agreed = 0
    try:
        while not (await asyncio.wait({answer}, timeout=LOOK_S))[0]:
            host = look()
            if host is None or host.descriptor.instance != instance:
                raise NoRespondersError("the neuron has left or was started again meanwhile")
            found = host.model(goal.model)
            was_loading = was_loading or (found is not None and found.state == ModelState.LOADING)
            outcome = _outcome(goal, host, was_loading=was_loading)
            agreed = agreed + 1 if outcome else 0
            if outcome is not None and agreed >= SURE_AFTER:
                return ProvisioningResponse(outcome=outcome)
        return answer.result()
    finally:
        answer.cancel()


def _outcome(goal: Goal, host: Host, *, was_loading: bool) -> ProvisioningOutcome | None:
    found = host.model(goal.model)
    state = found.state if found else ModelState.UNCONFIGURED
    if not goal.loaded:
        gone = state not in (ModelState.LOADED, ModelState.LOADING, ModelState.UNLOADING)
        return ProvisioningOk(model_id=goal.model) if gone else None
    if found is None:
        return None
    if state == ModelState.LOADED and found.config_digest in ("", goal.digest):
        return ProvisioningOk(model_id=goal.model)
    if state == ModelState.FAILED and was_loading:
        error = found.error or "it failed"
        return ProvisioningError(model_id=goal.model, error=error, code="model_failed")
    return None
