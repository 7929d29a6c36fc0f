# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which neurons can serve a request at all, and what to tell a caller when none can."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import msgspec

from helexa.protocol.errors import (
    ContextLengthError,
    HelexaError,
    ModelLoadingError,
    NoCapacityError,
    UnsupportedError,
)
from helexa.protocol.messages.models import ModelConfig, ModelState, Price
from helexa.protocol.messages.routing import Rejected, ScheduleRequest
from helexa.protocol.reports import ModelReport, PriceReport
from helexa.scheduler.candidates import Candidate

RETRY_SOON_S = 1.0
RETRY_LOADING_S = 2.0


class Obstacle(StrEnum):
    """Why a neuron cannot serve a request, by what could change it."""

    ABSENT = "absent"
    """The model is not loaded there, or nobody knows: the neuron is silent."""
    MODALITY = "modality"
    CONTEXT = "context"
    HINT = "hint"
    """The caller does not want this neuron."""
    BUSY = "busy"
    """Full, draining, impaired or tried already: another moment may differ."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why one neuron cannot serve the request."""

    neuron_id: str
    obstacle: Obstacle
    reason: str

    def to_rejected(self) -> Rejected:
        """Return it as callers see it."""
        return Rejected(neuron_id=self.neuron_id, reason=self.reason)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked for, and the catalogue's word on the model."""

    request: ScheduleRequest
    config: ModelConfig
    stale_after_s: float
    now: float = 0.0

    @property
    def tokens(self) -> int:
        """Context that the prompt needs, as far as it is known.

        The answer's limit does not count: a model stops where its context ends, and says so.
        """
        return self.request.prompt_tokens or 0


def split(
    workload: Workload, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], list[Verdict]]:
    """Return who can serve the workload, and a verdict on everyone else."""
    feasible: list[Candidate] = []
    verdicts: list[Verdict] = []
    for candidate in candidates:
        verdict = judge(workload, candidate)
        if verdict is None:
            feasible.append(candidate)
        else:
            verdicts.append(verdict)
    return feasible, verdicts


def judge(workload: Workload, candidate: Candidate) -> Verdict | None:
    """Return why `candidate` cannot serve the workload, or `None` if it can.

    The obstacles that last are looked for first, so that a caller is not told to try again when
    that cannot help.
    """
    found = _absence(workload, candidate)
    if found is None and candidate.model is not None:
        found = (
            _inability(workload, candidate.model)
            or _unwanted(workload, candidate)
            or _hindrance(workload, candidate, candidate.model)
        )
    if found is None:
        return None
    obstacle, reason = found
    return Verdict(candidate.neuron_id, obstacle, reason)


def context_of(config: ModelConfig, model: ModelReport) -> int | None:
    """Return the context of one slot of a replica, if it is known."""
    return model.capability.max_context_tokens or config.context_tokens or None


def price_of(config: ModelConfig, candidate: Candidate) -> Price:
    """Return what a replica asks: its own price, else the host's, else the catalogue's."""
    host = candidate.neuron.status.price
    own = candidate.model.price if candidate.model else host
    for reported in (own, host):
        if reported.output_per_million_tokens is not None:
            return _message(reported)
    return _message(own) if config.price.output_per_million_tokens is None else config.price


@lru_cache(maxsize=256)
def _message(price: PriceReport) -> Price:
    return Price.model_validate(msgspec.structs.asdict(price))


def refusal(
    workload: Workload, candidates: Sequence[Candidate], verdicts: Sequence[Verdict]
) -> HelexaError:
    """Return the error for a workload that nobody can serve now."""
    model = workload.config.model
    present = [verdict for verdict in verdicts if verdict.obstacle is not Obstacle.ABSENT]
    obstacles = {verdict.obstacle for verdict in present}
    if not present:
        return ModelLoadingError(
            f"{model} is not loaded on any host yet", retry_after_s=RETRY_LOADING_S
        )
    if Obstacle.BUSY in obstacles:
        return NoCapacityError(
            f"every host that has {model} is taken or not well", retry_after_s=RETRY_SOON_S
        )
    if Obstacle.HINT in obstacles:
        return UnsupportedError(f"the request's own limits rule out every host that has {model}")
    if Obstacle.CONTEXT in obstacles:
        return _too_long(workload, candidates)
    needs = ", ".join(workload.request.needs)
    if workload.request.continues:
        needs += ", go on from a partial answer"
    return UnsupportedError(f"{model} cannot do all of: {needs}", param="model")


def _too_long(workload: Workload, candidates: Sequence[Candidate]) -> ContextLengthError:
    contexts = [context_of(workload.config, each.model) or 0 for each in candidates if each.model]
    largest = max(contexts, default=0)
    return ContextLengthError(
        f"the prompt has about {workload.tokens} tokens, and {workload.config.model} has {largest}",
        param="messages",
        max_context_tokens=largest,
        needed_tokens=workload.tokens,
    )


Finding = tuple[Obstacle, str]


def _absence(workload: Workload, candidate: Candidate) -> Finding | None:
    age_s = workload.now - candidate.neuron.seen_at
    if age_s > workload.stale_after_s:
        return Obstacle.ABSENT, f"silent for {age_s:.1f} s"
    if candidate.model is None:
        return Obstacle.ABSENT, "does not have the model"
    if candidate.model.state != ModelState.LOADED:
        return Obstacle.ABSENT, f"the model is {candidate.model.state}"
    return None


def _inability(workload: Workload, model: ModelReport) -> Finding | None:
    request, capability = workload.request, model.capability
    for need in request.needs:
        if need not in capability.workloads:
            missing = [each for each in request.needs if each not in capability.workloads]
            return Obstacle.MODALITY, f"cannot do {', '.join(missing)}"
    if request.continues and not capability.continues_partial:
        return Obstacle.MODALITY, "cannot go on from a partial answer"
    context = context_of(workload.config, model)
    if context is not None and workload.tokens > context:
        return Obstacle.CONTEXT, f"context {context} is less than {workload.tokens} tokens"
    return None


def _unwanted(workload: Workload, candidate: Candidate) -> Finding | None:
    hints = workload.request.hints
    if candidate.neuron_id in hints.avoid_neurons:
        return Obstacle.HINT, "avoided by the request"
    limit = hints.max_price_per_million_output
    if limit is None:
        return None
    price = price_of(workload.config, candidate).output_per_million_tokens
    if price is not None and price <= limit:
        return None
    shown = "not known" if price is None else str(price)
    return Obstacle.HINT, f"price {shown}; the request allows {limit}"


def _hindrance(workload: Workload, candidate: Candidate, model: ModelReport) -> Finding | None:
    reason = None
    neuron = candidate.neuron
    if candidate.neuron_id in workload.request.exclude_neurons:
        reason = "tried already"
    elif neuron.status.draining:
        reason = "draining"
    elif not model.servable:
        reason = "loaded, but not servable"
    elif _is_full(candidate.model_slots_busy, model.slots_total):
        reason = f"all {model.slots_total} slots of the model busy"
    elif _is_full(neuron.slots_busy, neuron.status.slots_total):
        reason = f"all {neuron.status.slots_total} slots of the host busy"
    return (Obstacle.BUSY, reason) if reason else None


def _is_full(busy: int, total: int) -> bool:
    # A total of 0 means that the neuron does not tell.
    return total > 0 and busy >= total
