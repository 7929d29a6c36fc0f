# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What Helexa is to reach beside the others, and whether it does."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks import figures, phases
from tests.benchmarks.figures import Figure, Measure, Results, figure

OURS = "helexa"
LITELLM = "litellm"
SGLANG = "sglang-router"
SERVER = "nats-server"
"""The only one of our processes that is not Python."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure with a bound."""

    label: str
    read: Callable[[Results], Figure | None]
    least: float | None = None
    most: float | None = None
    unit: str = "x"

    @property
    def bound(self) -> str:
        """What is asked, as text."""
        if self.least is not None:
            return f"at least {self.least:g} {self.unit}"
        return f"at most {self.most:g} {self.unit}"

    def is_met(self, found: Figure) -> bool:
        """Return whether the median keeps to the bound."""
        if self.least is not None:
            return found.median >= self.least
        return self.most is not None and found.median <= self.most


def as_much_as(other: str, measure: Measure) -> Callable[[Results], Figure | None]:
    """Return how to read how many times as much we have as the other."""
    return lambda results: results.ratio(measure, OURS, other)


def less_than(other: str, measure: Measure) -> Callable[[Results], Figure | None]:
    """Return how to read how many times as much the other has as we."""
    return lambda results: results.ratio(measure, other, OURS)


def largest_python_process(results: Results) -> Figure | None:
    """Return the most memory, in MiB, that one of our Python processes had with 800 streams."""
    return figure(
        max(size for name, sizes in run.memory_mib.items() if name != SERVER for size in sizes)
        for run in results.of(OURS, phases.PACED_800)
        if run.memory_mib
    )


GOALS = (
    Goal("requests/s against LiteLLM, 16 at once", as_much_as(LITELLM, figures.RATE_16), least=15),
    Goal(
        "added latency against LiteLLM, one at a time, p50: less",
        less_than(LITELLM, figures.ADDED_LATENCY),
        least=12,
    ),
    Goal(
        "CPU for a paced token against LiteLLM: less",
        less_than(LITELLM, figures.CPU_TOKEN),
        least=4,
    ),
    Goal(
        "requests/s against sglang-router, 16 at once",
        as_much_as(SGLANG, figures.RATE_16),
        least=0.65,
    ),
    Goal(
        "tokens/s against sglang-router, 64 streams",
        as_much_as(SGLANG, figures.TOKEN_RATE_64),
        least=0.65,
    ),
    Goal(
        "added time to the first token, one stream, p50",
        lambda results: results.figure(figures.ADDED_FIRST_TOKEN, OURS),
        most=1.0,
        unit="ms",
    ),
    Goal(
        "added time to the first token against sglang-router",
        as_much_as(SGLANG, figures.ADDED_FIRST_TOKEN),
        most=3,
    ),
    Goal(
        "800 streams of 20 tokens/s: between tokens, p99",
        lambda results: results.figure(figures.BETWEEN_800, OURS),
        most=100,
        unit="ms",
    ),
    Goal("largest Python process with 800 streams", largest_python_process, most=150, unit="MiB"),
)
