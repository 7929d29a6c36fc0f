# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The question of who serves a request, and the answer."""

from typing import Literal

from pydantic import Field

from helexa.protocol.messages.base import Message
from helexa.protocol.messages.models import ModelId, Price


class UserHints(Message):
    """What the caller would like; hints never override policy."""

    prefer_neurons: tuple[str, ...] = ()
    avoid_neurons: tuple[str, ...] = ()
    session: str | None = None
    """Requests of one session go to one neuron where that costs nothing."""
    max_price_per_million_output: int | None = None
    mode: Literal["single", "replicated", "sharded"] = "single"


class ScheduleRequest(Message):
    """One request that needs a target."""

    request_id: str
    model: ModelId
    workload: str
    """A `WorkloadClass`."""
    needs: tuple[str, ...] = ()
    """`Workload` values that the model must have."""
    prompt_tokens: int | None = None
    """An estimate."""
    max_tokens: int | None = None
    prefix_hash: str | None = None
    """Of everything up to the first user message: the same over the turns of a chat."""
    prefix_digests: bytes = b""
    """Of the prompt's prefixes, as `digest_prefixes` makes them."""
    hints: UserHints = UserHints()
    continues: bool = False
    """The neuron must be able to go on from a partial assistant message."""
    exclude_neurons: tuple[str, ...] = ()
    """Targets that have refused or failed this request already."""


class Target(Message):
    """A neuron that can serve the request, and what speaks for it."""

    neuron_id: str
    score: float
    """Lower is better."""
    reasons: dict[str, float | str] = {}
    price: Price = Price()


class Rejected(Message):
    """A neuron that was looked at and cannot serve the request."""

    neuron_id: str
    reason: str


class Lease(Message):
    """For how long, and how often, a decision may serve other requests that are like its own.

    Those are for the same model, need the same, and are not larger.
    """

    for_s: float = Field(gt=0)
    """From the time at which the reply came."""
    uses: int = Field(gt=0)
    """Requests beside its own."""
    alike: int = Field(default=1, ge=1)
    """So many of the first targets are as good as each other, and take turns."""
    any_prompt: bool = False
    """The targets would be the same for another prompt and another session too."""


class RoutingDecision(Message):
    """Who serves the request."""

    decision_id: str
    model: ModelId
    """The canonical name, where an alias was asked for."""
    targets: tuple[Target, ...] = Field(min_length=1)
    """Best first."""
    mode: Literal["single", "replicated", "sharded"] = "single"
    rejected: tuple[Rejected, ...] = ()
    scheduler: str = ""
    lease: Lease | None = None
    """`None`: each request needs a decision of its own."""


class ExplainRequest(Message):
    """Why was, or would, a request be sent where."""

    request_id: str | None = None
    model: ModelId | None = None


class Explanation(Message):
    """The scheduler's view: what it would choose now, or what it chose for a request."""

    request_id: str | None = None
    decision: RoutingDecision | None = None
    reason: str = ""
    rejected: tuple[Rejected, ...] = ()


class Outcome(Message):
    """What a gateway saw of one neuron and model since its last report."""

    neuron_id: str
    model: ModelId
    completed: int = 0
    failed: int = 0
    refused: int = 0
    first_token_s: tuple[float, ...] = ()
    """Samples, at most 32, each scaled to a prompt of which little had to be read."""
    duration_s: tuple[float, ...] = ()


class Feedback(Message):
    """A gateway's report of outcomes, once a second when there are any."""

    gateway: str
    outcomes: tuple[Outcome, ...] = ()
    leased: dict[str, tuple[str, ...]] = {}
    """Requests that were served under the lease of a decision, by the decision's id; at most 1,024
    of a report."""


class GatewayBeat(Message):
    """A gateway is alive. Neurons cancel the work of one that falls silent."""

    gateway: str
    requests: int = 0
    returns: bool = False
    """Set on the last beat of a gateway that stops."""
