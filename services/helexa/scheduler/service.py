# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Answers who serves a request, and why."""

import asyncio
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from helexa.bus.buckets import Bucket, Entry, Mirror
from helexa.bus.client import Bus
from helexa.bus.reports import hear_reports
from helexa.bus.service import Service
from helexa.process.metrics import Metrics
from helexa.protocol import resources, subjects
from helexa.protocol.errors import (
    BadRequestError,
    HelexaError,
    NotFoundError,
    UnavailableError,
    UnknownModelError,
    UnsupportedError,
)
from helexa.protocol.messages.models import ModelConfig, WorkloadClass
from helexa.protocol.messages.routing import (
    ExplainRequest,
    Explanation,
    Feedback,
    RoutingDecision,
    ScheduleRequest,
)
from helexa.protocol.reports import NeuronReport
from helexa.scheduler.decision import Choice, choose
from helexa.scheduler.feasibility import RETRY_SOON_S, Workload, split
from helexa.scheduler.fleet import Fleet
from helexa.scheduler.history import History
from helexa.scheduler.leasing import grant
from helexa.scheduler.scoring import Terms

_log = logging.getLogger(__name__)

QUEUE = "scheduler"
MOST_REJECTED = 8
"""Neurons that an answer names as passed over; a busy site has many that are full."""
WAIT_FOR_OTHERS_S = 0.25
"""How long a replica that did not take a decision leaves the answer to the one that did."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times after which a neuron counts for less, and how far back decisions can be explained."""

    stale_after_s: float = 3.0
    forget_after_s: float = 60.0
    half_life_s: float = 15.0
    decisions_kept: int = 1000
    lease_s: float = 0.2
    prefix_affinity: bool = True
    """Whether prompts go where their beginning has been read before."""


class Catalogue(Protocol):
    """The models of the site."""

    @property
    def entries(self) -> Mapping[str, Entry[ModelConfig]]:
        """The models that are known."""

    @property
    def is_fresh(self) -> bool:
        """Whether there are no others."""

    async def get(self, key: str) -> ModelConfig | None:
        """Return a model by its name, also where it is not known yet."""


class Scheduler:
    """One replica. It needs no other: all of them hear the same reports."""

    def __init__(
        self,
        catalogue: Catalogue,
        metrics: Metrics,
        *,
        instance: str,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Decide by `catalogue` and by what `bind` makes it hear."""
        self.limits = limits or Limits()
        self.fleet = Fleet(
            History(self.limits.half_life_s), forget_after_s=self.limits.forget_after_s
        )
        self._catalogue = catalogue
        self._instance = instance
        self._clock = clock
        self._random = Random()  # noqa: S311 - no secret
        self._numbers = itertools.count(1)
        self._kept: OrderedDict[str, RoutingDecision] = OrderedDict()
        """By request."""
        self._leased: OrderedDict[str, RoutingDecision] = OrderedDict()
        """By their own id, for the requests that they will have served by a lease."""
        self._decisions = metrics.counter(
            "scheduler_decisions", "Decisions by how they ended.", "outcome"
        )
        self._seconds = metrics.histogram(
            "scheduler_decision_seconds",
            "Time to decide.",
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05),
        )
        neurons = metrics.gauge("scheduler_neurons", "Neurons that have reported lately.")
        neurons.set_function(lambda: self.fleet.size)

    async def bind(self, bus: Bus, service: Service) -> None:
        """Hear the neurons and gateways, then answer."""
        await hear_reports(bus, self.take_report)
        await bus.subscribe(subjects.FEEDBACK, self.take_feedback)
        await service.serve(subjects.SCHEDULE, self.schedule, queue=QUEUE)
        await service.serve(subjects.SCHEDULE_ANY, self.schedule)
        # Only one replica knows a past decision, so all are asked and the first answer counts.
        await service.serve(subjects.EXPLAIN, self.explain)

    def take_report(self, report: NeuronReport, _: bytes = b"") -> None:
        """Take a neuron's report."""
        self.fleet.report(report, self._clock())

    def take_feedback(self, report: Feedback) -> None:
        """Take what a gateway saw, and which requests it served by a decision's lease."""
        self.fleet.feedback(report, self._clock())
        for decision_id, requests in report.leased.items():
            decision = self._leased.get(decision_id)
            if decision is not None:
                for request_id in requests:
                    self._keep(self._kept, request_id, decision)

    async def schedule(self, request: ScheduleRequest) -> RoutingDecision:
        """Return the targets, best first.

        Raises:
            UnknownModelError: no such model in the catalogue.
            ModelLoadingError: known, but not loaded anywhere.
            NoCapacityError: every neuron that could is full.
            ContextLengthError: longer than the context of every loaded replica.
            UnsupportedError: no replica can do it, within the limits that the request sets.
            UnavailableError: the catalogue has not been read yet.
        """
        began = time.perf_counter()
        outcome = "decided"
        try:
            decision = await self._decide(request)
        except HelexaError as error:
            outcome = error.code
            raise
        finally:
            self._decisions.labels(outcome).inc()
            self._seconds.observe(time.perf_counter() - began)
        if request.workload == WorkloadClass.CHAT_BULK:
            # Nothing is sent by it: neurons pull bulk work, and the gateway asks whether any could.
            return decision
        used = len(decision.targets) if decision.mode == "replicated" else 1
        for target in decision.targets[:used]:
            self.fleet.decided(target.neuron_id, decision.model)
        self._keep(self._kept, request.request_id, decision)
        if decision.lease is not None:
            self._keep(self._leased, decision.decision_id, decision)
        return decision

    async def explain(self, request: ExplainRequest) -> Explanation:
        """Return what was decided for a request, or what would be decided for a model now.

        Raises:
            NotFoundError: no decision for the request is kept.
            UnknownModelError: no such model in the catalogue.
            BadRequestError: neither a request nor a model is named.
        """
        if request.request_id is not None:
            return await self._recall(request.request_id)
        if request.model is None:
            raise BadRequestError("name a request or a model")
        question = ScheduleRequest(request_id="", model=request.model, workload="")
        workload = await self._workload(question)
        try:
            decision = await self._decide(question)
        except HelexaError as error:
            _, verdicts = split(workload, self.fleet.candidates(workload.config.model))
            return Explanation(
                reason=error.message, rejected=tuple(each.to_rejected() for each in verdicts)
            )
        return Explanation(decision=decision, reason=_why(decision), rejected=decision.rejected)

    async def _recall(self, request_id: str) -> Explanation:
        decision = self._kept.get(request_id)
        if decision is None:
            await asyncio.sleep(WAIT_FOR_OTHERS_S)
            raise NotFoundError(f"no scheduler here remembers a decision for {request_id}")
        return Explanation(
            request_id=request_id,
            decision=decision,
            reason=_why(decision),
            rejected=decision.rejected,
        )

    async def _decide(self, request: ScheduleRequest) -> RoutingDecision:
        if request.hints.mode == "sharded":
            raise UnsupportedError("sharded requests do not exist yet", param="mode")
        workload = await self._workload(request)
        choice = choose(self.fleet, workload, self._random, by_prefix=self.limits.prefix_affinity)
        return self._decision(workload, choice)

    def _decision(self, workload: Workload, choice: Choice) -> RoutingDecision:
        return RoutingDecision(
            decision_id=f"{self._instance}-{next(self._numbers)}",
            model=workload.config.model,
            targets=tuple(choice.targets),
            mode=workload.request.hints.mode,
            rejected=tuple(each.to_rejected() for each in choice.verdicts[:MOST_REJECTED]),
            scheduler=self._instance,
            lease=grant(workload, choice, for_s=self.limits.lease_s),
        )

    async def _workload(self, request: ScheduleRequest) -> Workload:
        config = await self._resolve(request.model)
        return Workload(request, config, self.limits.stale_after_s, self._clock())

    async def _resolve(self, name: str) -> ModelConfig:
        entries = self._catalogue.entries
        if name in entries:
            return entries[name].value
        for entry in entries.values():
            if name in entry.value.aliases:
                return entry.value
        if self._catalogue.is_fresh:
            raise UnknownModelError(f"there is no model {name!r}", param="model")
        # What is not in a stale copy may be in the bucket all the same.
        found = await self._catalogue.get(name)
        if found is None:
            raise UnavailableError("the catalogue is being read", retry_after_s=RETRY_SOON_S)
        return found

    def _keep(
        self, kept: OrderedDict[str, RoutingDecision], name: str, decision: RoutingDecision
    ) -> None:
        kept[name] = decision
        kept.move_to_end(name)
        while len(kept) > self.limits.decisions_kept:
            kept.popitem(last=False)


def read_catalogue(bus: Bus) -> Mirror[ModelConfig]:
    """Return a copy of the catalogue, to be run."""
    return Mirror(Bucket(bus, resources.MODELS, ModelConfig))


def _why(decision: RoutingDecision) -> str:
    best = decision.targets[0]
    terms = {
        name: value
        for name, value in best.reasons.items()
        if name in Terms._fields and isinstance(value, float) and value
    }
    told = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
    told = told or "nothing against it"
    return f"{best.neuron_id} scores {best.score:.4g} ({told}) among {len(decision.targets)}"
