# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The bulk jobs of one gateway: who waits, who runs, and who may have one."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from helexa.gateway.answer import Answer
from helexa.gateway.dispatch import Course
from helexa.gateway.priority import Standing
from helexa.gateway.turns import Turns
from helexa.gateway.work import Work
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.naming import random_id
from helexa.protocol.reports import ModelReport


@dataclass(slots=True, eq=False)
class Ticket:
    """A place in the queue."""

    name: str = field(default_factory=random_id)
    sequence: int = 0
    """Its number in the queue; 0 while that is not known."""
    is_on_its_way: bool = False
    """Whether it is being put there."""


@dataclass(slots=True, eq=False)
class Job:
    """One bulk request, and who has claimed it."""

    work: Work
    answer: Answer
    course: Course
    ticket: Ticket = field(default_factory=Ticket)
    claimed: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Ends the wait: a neuron has it, or an error."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it should be looked at."""
    claimer: str = ""
    """The author that has it, or is being given it."""
    order: ExecuteRequest | None = None
    """What the claimer was told to do."""

    @property
    def standing(self) -> Standing:
        """What decides when it is its turn."""
        return self.work.standing

    @property
    def is_begun(self) -> bool:
        """Whether the claimer has been heard."""
        return self.order is not None and self.answer.fold.next_seq > self.order.first_seq

    async def until_news(self, timeout_s: float) -> None:
        """Return when it is claimed or should be looked at, at the latest after `timeout_s`."""
        news = asyncio.create_task(self._until_told())
        try:
            await asyncio.wait(
                {self.claimed, news}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            news.cancel()
            self.news.clear()

    def fail(self, error: HelexaError) -> None:
        """End the wait with `error`."""
        if not self.claimed.done():
            self.claimed.set_exception(error)

    async def _until_told(self) -> None:
        await self.news.wait()


class Jobs:
    """The bulk requests of a gateway: who waits, whose turn it is, and who holds which ticket.

    A ticket is good for any request: whoever pulls one is given the request whose turn it is.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._jobs: dict[str, Job] = {}
        self._holders: dict[str, Job] = {}
        """Who holds each ticket, by its name."""
        self._lines: defaultdict[str, dict[Job, None]] = defaultdict(dict)
        """Those that somebody waits for, by model."""
        self._turns: defaultdict[str, Turns[Job]] = defaultdict(Turns)
        self._given: set[Job] = set()
        """Those that have had their turn, and are not forgotten."""

    def __iter__(self) -> Iterator[Job]:
        """All that somebody waits for."""
        return (job for line in self._lines.values() for job in line)

    def enter(self, job: Job) -> None:
        """Let a new job wait."""
        self._jobs[job.work.request_id] = job
        self._holders[job.ticket.name] = job
        self._lines[job.work.model][job] = None
        self._turns[job.work.model].add(job)

    def enter_again(self, job: Job) -> None:
        """Let a job wait for another neuron, before the others of its key."""
        self._end_turn(job)
        job.claimed = asyncio.get_running_loop().create_future()
        job.claimer, job.order = "", None
        self._lines[job.work.model][job] = None
        self._turns[job.work.model].add(job, first=True)

    def leave(self, job: Job) -> None:
        """Note that nobody waits for a job any more: it was claimed, or given up."""
        model = job.work.model
        self._turns[model].remove(job)
        self._lines[model].pop(job, None)
        if not self._lines[model]:
            del self._lines[model]

    def remove(self, request_id: str) -> Job | None:
        """Forget the job of a request, and return it."""
        job = self._jobs.pop(request_id, None)
        if job is not None:
            self._holders.pop(job.ticket.name, None)
            self._end_turn(job)
        return job

    def get(self, request_id: str) -> Job | None:
        """Return the job of a request."""
        return self._jobs.get(request_id)

    def holder(self, ticket: str) -> Job | None:
        """Return who holds a ticket."""
        return self._holders.get(ticket)

    def new_ticket(self, job: Job) -> Ticket:
        """Give a job another ticket in place of one that is lost, and return it."""
        self._holders.pop(job.ticket.name, None)
        job.ticket = Ticket()
        self._holders[job.ticket.name] = job
        return job.ticket

    def give(self, holder: Job, suits: Callable[[Job], bool]) -> Job | None:
        """Return the job whose turn it is among those that suit, with the ticket of `holder`."""
        turns = self._turns[holder.work.model]
        foremost = turns.next()
        waiting = (*((foremost,) if foremost else ()), *turns)
        job: Job | None = next((job for job in waiting if suits(job)), None)
        if job is None:
            return None
        turns.give(job)
        self._given.add(job)
        holder.ticket, job.ticket = job.ticket, holder.ticket
        self._holders[holder.ticket.name] = holder
        self._holders[job.ticket.name] = job
        return job

    def use(self, job: Job) -> None:
        """Note that a job that was given is claimed."""
        self._turns[job.work.model].use(job)

    def put_back(self, job: Job) -> None:
        """Let a job that was given wait where it was."""
        if job in self._given:
            self._given.discard(job)
            self._turns[job.work.model].put_back(job)

    def first(self, model: str) -> Job | None:
        """Return the job that has waited longest for `model`."""
        return next(iter(self.waiting(model)), None)

    def waits(self, job: Job) -> bool:
        """Whether somebody waits for `job` to be claimed."""
        return job in self._lines.get(job.work.model, {})

    def waiting(self, model: str) -> tuple[Job, ...]:
        """Return those that somebody waits for, in the order in which they came."""
        return tuple(self._lines.get(model, ()))

    def models(self) -> tuple[str, ...]:
        """Return the models that are waited for."""
        return tuple(self._lines)

    def depth(self, model: str) -> int:
        """Return how many wait for `model`."""
        return len(self._lines.get(model, ()))

    def count(self, key: str) -> tuple[int, int]:
        """Return how many wait in all, and how many of them for the key."""
        keys = [job.standing.key for job in self]
        return len(keys), keys.count(key)

    def look(self, model: str) -> None:
        """Have the first one that waits for `model` looked at."""
        first = self.first(model)
        if first is not None:
            first.news.set()

    def _end_turn(self, job: Job) -> None:
        if job in self._given:
            self._given.discard(job)
            self._turns[job.work.model].take_back(job)


def objection(
    work: Work, neuron_id: str, failed: Collection[str], serving: dict[str, ModelReport]
) -> str | None:
    """Return why a neuron may not have a job that it has pulled, or `None` if it may.

    Args:
        work: The request.
        neuron_id: Who has pulled its job.
        failed: The neurons that have broken the request before.
        serving: The neurons that serve the model, as they reported last.
    """
    if neuron_id in work.order.hints.avoid_neurons:
        return "the caller does not want this neuron"
    if neuron_id in failed and serving.keys() - set(failed):
        return "it has failed this request, and others have not"
    status = serving.get(neuron_id)
    return None if status is None else _lack(work, status)


def _lack(work: Work, status: ModelReport) -> str | None:
    order, capability = work.order, status.capability
    context = capability.max_context_tokens
    if context and order.prompt_tokens > context:
        return "the prompt is longer than its context"
    if capability.workloads and not set(order.needs) <= set(capability.workloads):
        return "it cannot do that"
    highest, price = order.hints.max_price_per_million_output, status.price
    asked = price.output_per_million_tokens
    if highest is not None and asked is not None and asked > highest:
        return "it asks for more than the caller pays"
    return None
