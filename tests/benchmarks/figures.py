# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What was measured, and the figures that follow from it: pure, no clocks, no processes."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tests.benchmarks import phases
from tests.benchmarks.phases import Phase

DIRECT = "direct"
MICRO = 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """One phase at one target, once."""

    target: str
    phase: str
    repetition: int
    load: Mapping[str, float]
    """What the load generator has counted."""
    cpu_s: Mapping[str, float]
    """Processor time of the target's processes meanwhile, by their name."""
    memory_mib: Mapping[str, list[float]] = field(default_factory=dict)
    """Resident memory of each of them at the end, under load, by their name."""

    @property
    def trouble(self) -> int:
        """How many answers failed or were wrong."""
        return int(self.load["failed"] + self.load["wrong"])


@dataclass(frozen=True, slots=True)
class Figure:
    """A median and its range over the repetitions."""

    median: float
    least: float
    most: float

    def shown(self, decimals: int) -> str:
        """Return it as text."""
        shown = [f"{each:,.{decimals}f}" for each in (self.median, self.least, self.most)]
        if self.least == self.most:
            return shown[0]
        return f"{shown[0]} ({shown[1]} to {shown[2]})"


def figure(values: Iterable[float]) -> Figure | None:
    """Return the median and the range of `values`; `None` if there are none."""
    found = list(values)
    return Figure(statistics.median(found), min(found), max(found)) if found else None


Reading = Callable[[Run], float | None]


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of every target."""

    label: str
    phase: Phase
    read: Reading
    decimals: int = 2
    is_added: bool = False
    """What direct needs, in the same repetition, is subtracted."""


def field_of(name: str) -> Reading:
    """Return how to read one of the generator's figures; it has none where it says -1."""

    def read(run: Run) -> float | None:
        value = run.load[name]
        return value if value >= 0 else None

    return read


def per_second(name: str) -> Reading:
    """Return how to read how many of something came in a second."""
    return lambda run: run.load[name] / run.load["duration_s"]


def cpu_us_per(name: str) -> Reading:
    """Return how to read the processor time per answer or token."""

    def read(run: Run) -> float | None:
        count = run.load[name]
        return sum(run.cpu_s.values()) * MICRO / count if count and run.cpu_s else None

    return read


def busy(run: Run) -> float | None:
    """Return the part of one core that the target used, in percent."""
    return sum(run.cpu_s.values()) / run.load["duration_s"] * 100 if run.cpu_s else None


ADDED_LATENCY = Measure(
    "one at a time: added to direct, p50, ms",
    phases.WHOLE_1,
    field_of("latency_p50_ms"),
    decimals=3,
    is_added=True,
)
RATE_16 = Measure("16 at once: requests/s", phases.WHOLE_16, per_second("answers"), 0)
ADDED_FIRST_TOKEN = Measure(
    "one stream: first token, added to direct, p50, ms",
    phases.STREAM_1,
    field_of("first_token_p50_ms"),
    decimals=3,
    is_added=True,
)
TOKEN_RATE_64 = Measure("64 streams at once: tokens/s", phases.STREAM_64, per_second("tokens"), 0)
CPU_TOKEN = Measure(
    "100 streams of 20 tokens/s: CPU, us/token", phases.PACED_100, cpu_us_per("tokens"), 0
)
BETWEEN_800 = Measure(
    "800 streams of 20 tokens/s: between tokens p99, ms",
    phases.PACED_800,
    field_of("between_tokens_p99_ms"),
    1,
)
MEASURES = (
    Measure("one at a time: p50, ms", phases.WHOLE_1, field_of("latency_p50_ms"), 3),
    Measure("one at a time: p99, ms", phases.WHOLE_1, field_of("latency_p99_ms")),
    ADDED_LATENCY,
    RATE_16,
    Measure("16 at once: CPU, us/request", phases.WHOLE_16, cpu_us_per("answers"), 0),
    Measure("64 at once: requests/s", phases.WHOLE_64, per_second("answers"), 0),
    Measure("64 at once: CPU, us/request", phases.WHOLE_64, cpu_us_per("answers"), 0),
    Measure("one stream: first token p50, ms", phases.STREAM_1, field_of("first_token_p50_ms"), 3),
    Measure("one stream: first token p99, ms", phases.STREAM_1, field_of("first_token_p99_ms")),
    ADDED_FIRST_TOKEN,
    TOKEN_RATE_64,
    CPU_TOKEN,
    *(
        Measure(f"{each.concurrency} streams of 20 tokens/s: {label}", each, read, 1)
        for each in (phases.PACED_800, phases.PACED_1600)
        for label, read in (
            ("tokens/s", per_second("tokens")),
            ("between tokens p50, ms", field_of("between_tokens_p50_ms")),
            ("between tokens p99, ms", field_of("between_tokens_p99_ms")),
            ("CPU, us/token", cpu_us_per("tokens")),
        )
    ),
    Measure("nobody asks: CPU, % of a core", phases.IDLE, busy, 1),
)


class Results:
    """All runs, by target, phase and repetition."""

    def __init__(self, runs: Iterable[Run]) -> None:
        """Take the runs in the order in which they were made."""
        self.runs = list(runs)
        self._found = {(run.target, run.phase, run.repetition): run for run in self.runs}

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(run.target for run in sorted(self.runs, key=_repetition)))

    def of(self, target: str, phase: Phase) -> list[Run]:
        """Return a target's runs of a phase."""
        return [run for run in self.runs if (run.target, run.phase) == (target, phase.name)]

    def values(self, measure: Measure, target: str) -> dict[int, float]:
        """Return what was measured, by repetition."""
        found: dict[int, float] = {}
        for run in self.of(target, measure.phase):
            value = measure.read(run)
            if value is not None and measure.is_added:
                direct = self._found.get((DIRECT, run.phase, run.repetition))
                before = None if direct is None or target == DIRECT else measure.read(direct)
                value = None if before is None else value - before
            if value is not None:
                found[run.repetition] = value
        return found

    def figure(self, measure: Measure, target: str) -> Figure | None:
        """Return a target's median and range."""
        return figure(self.values(measure, target).values())

    def ratio(self, measure: Measure, target: str, other: str) -> Figure | None:
        """Return how many times as much `target` has as `other`, in each repetition."""
        ours, theirs = self.values(measure, target), self.values(measure, other)
        return figure(ours[each] / theirs[each] for each in ours if theirs.get(each, 0) > 0)

    def cpu_split(self, measure: Measure, target: str, count: str) -> dict[str, Figure]:
        """Return the microseconds for one of `count`, by the processes' names, most first."""
        runs = [run for run in self.of(target, measure.phase) if run.load[count]]
        names = {name for run in runs for name in run.cpu_s}
        split = {
            name: each
            for name in names
            if (each := figure(run.cpu_s.get(name, 0.0) * MICRO / run.load[count] for run in runs))
        }
        return dict(sorted(split.items(), key=lambda pair: -pair[1].median))

    def memory(self, target: str, phase: Phase) -> dict[str, tuple[int, float]]:
        """Return how many processes of each name there are, and the most MiB that one had."""
        found: dict[str, tuple[int, float]] = {}
        for run in self.of(target, phase):
            for name, sizes in run.memory_mib.items():
                most = max(sizes[0], found.get(name, (0, 0.0))[1])
                found[name] = (len(sizes), most)
        return found


def _repetition(run: Run) -> int:
    return run.repetition
