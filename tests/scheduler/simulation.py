# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A site in simulated time: real schedulers and reports, made-up chats and caches.

Chats begin with one of many system prompts, of which few are much used, and go on for some
turns. A neuron keeps what it has read in a cache of limited size. It reads what it does not know of
a prompt, then it answers.
"""

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from statistics import fmean, median

from helexa.bus.buckets import Entry
from helexa.neuron.prompts import RecentPrompts
from helexa.process.metrics import Metrics
from helexa.protocol.codec import pack
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelState, ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.routing import RoutingDecision, ScheduleRequest
from helexa.protocol.prefixes import LENGTHS, digest_prefixes, split_digests
from helexa.protocol.reports import read_report
from helexa.scheduler.service import Limits, Scheduler

MODEL = ModelId("m")
REPORT_AFTER_S = 0.02
"""From a change to the report of it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is simulated."""

    neurons: int = 8
    slots: int = 16
    cache_bytes: int = 2_000_000
    """What a neuron can keep of what it has read: the text of some 500,000 tokens."""
    read_bytes_per_s: float = 20_000.0
    write_bytes_per_s: float = 200.0
    chats: int = 2000
    chats_per_s: float = 4.0
    system_prompts: int = 300
    replicas: int = 1
    prefix_affinity: bool = True
    seed: int = 1


@dataclass(slots=True)
class _Chat:
    prompt: bytes
    turns: int
    random: Random
    """Its own, so that the same is said whatever becomes of other chats."""


@dataclass(slots=True)
class _Asked:
    chat: _Chat
    at: float
    digests: bytes


class _Neuron:
    """One neuron with its cache."""

    def __init__(self, number: int, shape: Shape) -> None:
        self.name = f"neuron-{number}"
        self.busy = 0
        self.served = 0
        self.changed = False
        self._slots = shape.slots
        self._room = shape.cache_bytes
        self._prompts = RecentPrompts()
        self._cache: OrderedDict[int, int] = OrderedDict()
        self._held = 0
        self._reports = 0

    def report(self) -> bytes:
        """Return its status, as it travels."""
        self._reports += 1
        model = ModelStatus(
            model=MODEL,
            state=ModelState.LOADED,
            slots_total=self._slots,
            slots_busy=self.busy,
            prefix_digests=self._prompts.recent(MODEL, self),
        )
        return pack(
            NeuronStatus(
                neuron_id=self.name,
                instance="i",
                sequence=self._reports,
                slots_total=self._slots,
                slots_busy=self.busy,
                models=(model,),
            )
        )

    def take(self, prefix_digests: bytes) -> int | None:
        """Begin a request and return how many bytes of it are known; `None`: no slot is free."""
        if self.busy == self._slots:
            return None
        self.busy += 1
        self.served += 1
        self._prompts.take(MODEL, self, prefix_digests)
        return self._read(split_digests(prefix_digests))

    def _read(self, digests: Sequence[int]) -> int:
        known = sum(1 for _ in itertools.takewhile(self._cache.__contains__, digests))
        before = 0
        for digest, length in zip(digests, LENGTHS, strict=False):
            if digest not in self._cache:
                self._held += length - before
            self._cache[digest] = length - before
            before = length
        # What a prefix goes on with is of no use without it, so it leaves first.
        for digest in reversed(digests):
            self._cache.move_to_end(digest)
        while self._held > self._room:
            self._held -= self._cache.popitem(last=False)[1]
        return LENGTHS[known - 1] if known else 0


class _Catalogue:
    """One model."""

    is_fresh = True

    def __init__(self) -> None:
        self.entries = {str(MODEL): Entry(ModelConfig(model=MODEL, backend_kind="any"), 1)}

    async def get(self, key: str) -> ModelConfig | None:
        """Return the configuration of a model."""
        return self.entries[key].value


@dataclass(slots=True)
class Result:
    """How it went."""

    asked_bytes: int = 0
    known_bytes: int = 0
    first_token_s: list[float] = field(default_factory=list)
    crowding: list[float] = field(default_factory=list)
    """The busiest neuron against the mean, at each request."""
    served: list[int] = field(default_factory=list)
    """By neuron."""
    refused: int = 0

    @property
    def hit_percent(self) -> float:
        """How much of all prompts was known where it was sent."""
        return 100 * self.known_bytes / self.asked_bytes

    @property
    def first_token_median_s(self) -> float:
        """The time from a request to its first token."""
        return median(self.first_token_s)

    @property
    def busiest_share(self) -> float:
        """How much more the busiest neuron had to do than the mean, on average over time."""
        return fmean(self.crowding)

    @property
    def most_served(self) -> float:
        """Requests of the neuron that had most of them, against the mean."""
        return max(self.served) / fmean(self.served)


class Simulation:
    """One run."""

    def __init__(self, shape: Shape) -> None:
        """Prepare it."""
        self.now = 0.0
        self._shape = shape
        self._random = Random(shape.seed)  # noqa: S311 - the same for every run
        self._balancer = Random(shape.seed)  # noqa: S311 - the same
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._neurons = {each.name: each for each in map(self._neuron, range(shape.neurons))}
        limits = Limits(prefix_affinity=shape.prefix_affinity)
        self._schedulers = [
            Scheduler(
                _Catalogue(),
                Metrics("scheduler", f"s{number}"),
                instance=f"s{number}",
                limits=limits,
                clock=lambda: self.now,
            )
            for number in range(shape.replicas)
        ]
        self._waiting: deque[_Asked] = deque()
        self._ready: deque[_Asked] = deque()
        self._result = Result()
        self._system_prompts = [
            _text(self._random, 2000, 12000) for _ in range(shape.system_prompts)
        ]
        weights = [1 / rank for rank in range(1, shape.system_prompts + 1)]
        self._popularity = list(itertools.accumulate(weights))

    async def run(self) -> Result:
        """Return how it went."""
        for name in self._neurons:
            self._report_each_second(self._neurons[name])
        begins = 1.0
        for _ in range(self._shape.chats):
            begins += self._random.expovariate(self._shape.chats_per_s)
            self._at(begins, partial(self._ask, self._chat()))
        last = begins
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
            while self._ready:
                await self._place(self._ready.popleft())
            if self.now > last and not any(each.busy for each in self._neurons.values()):
                break
        self._result.served = [each.served for each in self._neurons.values()]
        return self._result

    def _neuron(self, number: int) -> _Neuron:
        return _Neuron(number, self._shape)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), act))

    def _chat(self) -> _Chat:
        (prompt,) = self._random.choices(self._system_prompts, cum_weights=self._popularity)
        own = Random(self._random.random())  # noqa: S311 - the same
        return _Chat(prompt, 1 + min(9, int(own.expovariate(1 / 3))), own)

    def _ask(self, chat: _Chat) -> None:
        chat.prompt += _text(chat.random, 100, 1000)
        self._ready.append(_Asked(chat, self.now, digest_prefixes(chat.prompt)))

    async def _place(self, asked: _Asked) -> None:
        scheduler = self._balancer.choice(self._schedulers)
        request = ScheduleRequest(
            request_id="r",
            model=MODEL,
            workload="ChatInteractive",
            prompt_tokens=len(asked.chat.prompt) // 4,
            prefix_digests=asked.digests,
        )
        try:
            decision = await scheduler.schedule(request)
        except HelexaError:
            self._waiting.append(asked)
            return
        if not self._execute(asked, decision):
            self._waiting.append(asked)

    def _execute(self, asked: _Asked, decision: RoutingDecision) -> bool:
        busy = [each.busy for each in self._neurons.values()]
        for target in decision.targets:
            neuron = self._neurons[target.neuron_id]
            known = neuron.take(asked.digests)
            if known is None:
                self._result.refused += 1
                continue
            if any(busy):
                self._result.crowding.append(max(busy) / fmean(busy))
            self._serve(asked, neuron, known)
            return True
        return False

    def _serve(self, asked: _Asked, neuron: _Neuron, known: int) -> None:
        size = len(asked.chat.prompt)
        self._result.asked_bytes += size
        self._result.known_bytes += known
        read_s = (size - known) / self._shape.read_bytes_per_s
        answer = _text(asked.chat.random, 200, 1200)
        self._result.first_token_s.append(self.now - asked.at + read_s)
        ends = self.now + read_s + len(answer) / self._shape.write_bytes_per_s
        self._change(neuron)
        self._at(ends, partial(self._finish, asked.chat, neuron, answer))

    def _finish(self, chat: _Chat, neuron: _Neuron, answer: bytes) -> None:
        neuron.busy -= 1
        self._change(neuron)
        if self._waiting:
            # The gateway's line is woken by the report.
            self._at(self.now + REPORT_AFTER_S, self._wake)
        chat.prompt += answer
        chat.turns -= 1
        if chat.turns:
            self._at(self.now + chat.random.expovariate(1 / 5), partial(self._ask, chat))

    def _wake(self) -> None:
        if self._waiting:
            self._ready.append(self._waiting.popleft())

    def _change(self, neuron: _Neuron) -> None:
        if not neuron.changed:
            neuron.changed = True
            self._at(self.now + REPORT_AFTER_S, partial(self._report, neuron))

    def _report_each_second(self, neuron: _Neuron) -> None:
        self._report(neuron)
        self._at(self.now + 1, partial(self._report_each_second, neuron))

    def _report(self, neuron: _Neuron) -> None:
        neuron.changed = False
        data = neuron.report()
        for scheduler in self._schedulers:
            scheduler.take_report(read_report(data))


def _text(random: Random, least: int, most: int) -> bytes:
    return random.randbytes(random.randint(least, most))
