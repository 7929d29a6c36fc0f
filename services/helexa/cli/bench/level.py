# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the answers of one step came to."""

from collections.abc import Mapping
from dataclasses import dataclass

from helexa.cli.bench.answer import Answer
from helexa.cli.bench.effort import Effort
from helexa.cli.bench.histogram import Histogram
from helexa.cli.bench.plan import Step
from helexa.cli.bench.trouble import Trouble

NEAR_A_CORE = 0.8
"""Share of the time in which the generator, a single thread, wanted a core, above which it may
itself be what is measured."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How durations are spread, in seconds."""

    count: int
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why requests had no answer."""

    code: str
    count: int
    message: str
    """Of the first one."""
    is_refusal: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """One step, measured. Durations and tokens are those of requests that were answered."""

    streamed: bool
    concurrency: int
    rate: float | None
    seconds: float
    """From the first request to the last answer."""
    requests: int
    answered: int
    refused: int
    """The endpoint had no room: 429, 503."""
    failed: int
    abandoned: int
    """Under way when the run was interrupted."""
    reasons: tuple[Reason, ...]
    connections: int
    """How many were opened."""
    requests_per_s: float
    tokens_per_s: float
    completion_tokens: int
    prompt_tokens: int | None
    """Mean length of a prompt, where the endpoint tells."""
    are_tokens_events: bool
    """Whether events were counted, because an answer did not tell how many tokens it has."""
    time_to_first_token: Spread
    inter_token: Spread
    """Time between the arrivals of two tokens."""
    time_per_output_token: Spread
    """By answer: from its first token to its last, divided by the tokens after the first."""
    latency: Spread
    """From the request to the end of the answer."""
    generator_share: float
    """Of one core, that the generator had."""
    generator_waited_share: float
    """Of the time, that it waited for a core which others had."""
    is_generator_near_its_limit: bool


class Level:
    """Counts the answers of one step."""

    def __init__(self, step: Step) -> None:
        """Begin with none."""
        self.step = step
        self.gaps = Histogram()
        self.started = 0
        self.answered = 0
        self.refused = 0
        self.failed = 0
        self.connections = 0
        self._reasons: dict[str, tuple[int, Trouble]] = {}
        self._first = Histogram()
        self._per_token = Histogram()
        self._latency = Histogram()
        self._completion_tokens = 0
        self._prompt_tokens = 0
        self._prompts = 0
        self._are_tokens_events = False

    @property
    def ended(self) -> int:
        """Requests that have ended, for better or worse."""
        return self.answered + self.refused + self.failed

    def take(self, answer: Answer) -> None:
        """Take in a request that has ended."""
        if answer.trouble is not None:
            self._take_trouble(answer.trouble)
            return
        self.answered += 1
        ended_s = answer.began_s if answer.ended_s is None else answer.ended_s
        self._latency.add(ended_s - answer.began_s)
        tokens = answer.completion_tokens
        if tokens is None:
            tokens = answer.events
            self._are_tokens_events = True
        self._completion_tokens += tokens
        if answer.first_s is not None:
            self._first.add(answer.first_s - answer.began_s)
            if tokens > 1:
                self._per_token.add((answer.last_s - answer.first_s) / (tokens - 1))
        prompt = answer.prompt_tokens
        if prompt is not None:
            self._prompt_tokens += prompt
            self._prompts += 1

    def figures(self, seconds: float, effort: Effort) -> Figures:
        """Return what it came to in `seconds`, for which this process took `effort`."""
        share = effort.cpu_s / seconds if seconds else 0.0
        waited = effort.waited_s / seconds if seconds else 0.0
        return Figures(
            streamed=self.step.streamed,
            concurrency=self.step.concurrency,
            rate=self.step.rate,
            seconds=seconds,
            requests=self.started,
            answered=self.answered,
            refused=self.refused,
            failed=self.failed,
            abandoned=self.started - self.ended,
            reasons=reasons(self._reasons),
            connections=self.connections,
            requests_per_s=self.answered / seconds if seconds else 0.0,
            tokens_per_s=self._completion_tokens / seconds if seconds else 0.0,
            completion_tokens=self._completion_tokens,
            prompt_tokens=round(self._prompt_tokens / self._prompts) if self._prompts else None,
            are_tokens_events=self._are_tokens_events,
            time_to_first_token=spread(self._first),
            inter_token=spread(self.gaps),
            time_per_output_token=spread(self._per_token),
            latency=spread(self._latency),
            generator_share=share,
            generator_waited_share=waited,
            is_generator_near_its_limit=share + waited >= NEAR_A_CORE,
        )

    def _take_trouble(self, trouble: Trouble) -> None:
        if trouble.is_refusal:
            self.refused += 1
        else:
            self.failed += 1
        count, first = self._reasons.get(trouble.code, (0, trouble))
        self._reasons[trouble.code] = (count + 1, first)


def spread(durations: Histogram) -> Spread:
    """Return how `durations` are spread."""
    return Spread(
        count=durations.count,
        mean_s=durations.mean_s,
        p50_s=durations.percentile_s(0.50),
        p95_s=durations.percentile_s(0.95),
        p99_s=durations.percentile_s(0.99),
        max_s=durations.most_s,
    )


def reasons(counted: Mapping[str, tuple[int, Trouble]]) -> tuple[Reason, ...]:
    """Return why requests had no answer, the most frequent first."""
    found = [
        Reason(trouble.code, count, trouble.message, trouble.is_refusal)
        for count, trouble in counted.values()
    ]
    return tuple(sorted(found, key=lambda reason: (-reason.count, reason.code)))
