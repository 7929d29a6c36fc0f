# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The bulk jobs of one gateway: who waits, who runs, and who may have one."""

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from helexa.gateway.answer import Answer
from helexa.gateway.dispatch import Course
from helexa.gateway.work import Work
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.messages.models import ModelStatus


@dataclass(slots=True, eq=False)
class Job:
    """One request's job, and who has claimed it."""

    work: Work
    answer: Answer
    course: Course
    claimed: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Ends the wait: a neuron has it, or an error."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it should be looked at."""
    sequence: int = 0
    """Its number in the queue; 0 before it is there."""
    offered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while its number is known."""
    claimer: str = ""
    """The author that has it, or is being given it."""
    order: ExecuteRequest | None = None
    """What the claimer was told to do."""

    @property
    def is_begun(self) -> bool:
        """Whether the claimer has been heard."""
        return self.order is not None and self.answer.fold.next_seq > self.order.first_seq

    def wait_anew(self) -> None:
        """Wait for another neuron."""
        self.claimed = asyncio.get_running_loop().create_future()
        self.claimer, self.order = "", None

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
    """The job of each request; those that wait also stand in the line of their model."""

    def __init__(self) -> None:
        """Begin without any."""
        self._jobs: dict[str, Job] = {}
        self._lines: dict[str, dict[Job, None]] = {}

    def enter(self, job: Job, *, is_first: bool = False) -> None:
        """Put a job into its line: at the end, or at the beginning."""
        model = job.work.model
        line = self._lines.get(model, {})
        self._lines[model] = {job: None, **line} if is_first else line | {job: None}
        self._jobs[job.work.request_id] = job

    def leave(self, job: Job) -> None:
        """Take a job out of its line."""
        line = self._lines.get(job.work.model, {})
        line.pop(job, None)
        if not line:
            self._lines.pop(job.work.model, None)

    def remove(self, request_id: str) -> Job | None:
        """Forget the job of a request, and return it."""
        return self._jobs.pop(request_id, None)

    def get(self, request_id: str) -> Job | None:
        """Return the job of a request."""
        return self._jobs.get(request_id)

    def first(self, model: str) -> Job | None:
        """Return the job that has waited longest for `model`."""
        return next(iter(self._lines.get(model, {})), None)

    def waits(self, job: Job) -> bool:
        """Whether somebody waits for `job` to be claimed."""
        return job in self._lines.get(job.work.model, {})

    def waiting(self, model: str) -> list[Job]:
        """Return those that wait for `model`, oldest first."""
        return list(self._lines.get(model, {}))

    def models(self) -> tuple[str, ...]:
        """Return the models that are waited for."""
        return tuple(self._lines)

    def depth(self, model: str) -> int:
        """Return how many wait for `model`."""
        return len(self._lines.get(model, {}))

    def count(self, key: str) -> tuple[int, int]:
        """Return how many wait in all, and how many of them for the key."""
        keys = [job.work.standing.key for job in self]
        return len(keys), keys.count(key)

    def look(self, model: str) -> None:
        """Have the first one that waits for `model` looked at."""
        first = self.first(model)
        if first is not None:
            first.news.set()

    def __iter__(self) -> Iterator[Job]:
        """All that wait."""
        for line in self._lines.values():
            yield from line


def objection(
    work: Work, neuron_id: str, failed: Collection[str], serving: dict[str, ModelStatus]
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


def _lack(work: Work, status: ModelStatus) -> str | None:
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
