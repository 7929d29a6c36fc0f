# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What processes use over time, and whether that grows."""

import asyncio
import itertools
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

SAMPLE_S = 5.0
FLAT_PART = 0.02
KIB = 1024
ARENA_KIB = 1024
"""CPython takes memory from the system in pieces of this size, so that one step tells nothing."""


@dataclass
class Series:
    """What one process used, from sample to sample."""

    at_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, now_s: float, process: psutil.Process) -> None:
        """Take a sample."""
        with process.oneshot():
            self.at_s.append(now_s)
            self.rss.append(process.memory_info().rss)
            self.files.append(process.num_fds())
            self.threads.append(process.num_threads())
            self.cpu.append(process.cpu_percent())


@dataclass(frozen=True)
class Verdict:
    """What a series says of a process, once it is warm."""

    median_kib: float
    slope_kib_a_minute: float
    rise: float
    """Of the line over the judged time, as a part of the median."""

    @property
    def is_flat(self) -> bool:
        return self.rise < FLAT_PART or self.rise * self.median_kib < 2 * ARENA_KIB


def judge(series: Series, from_s: float) -> Verdict:
    """Return the verdict on the samples from `from_s` on; at least two are needed."""
    kept = [(at, rss) for at, rss in zip(series.at_s, series.rss, strict=True) if at >= from_s]
    times, sizes = [at for at, _ in kept], [rss / KIB for _, rss in kept]
    slope = statistics.linear_regression(times, sizes).slope
    median = statistics.median(sizes)
    return Verdict(median, slope * 60, slope * (times[-1] - times[0]) / median)


async def sample(
    watched: Mapping[str, psutil.Process], for_s: float, look: Callable[[], Awaitable[None]]
) -> dict[str, Series]:
    """Return what each process used in that time; `look` is called at each sample too."""
    series = {name: Series() for name in watched}
    loop = asyncio.get_running_loop()
    began = loop.time()
    for each in watched.values():
        each.cpu_percent()
    while (now_s := loop.time() - began) < for_s:
        await asyncio.sleep(SAMPLE_S - now_s % SAMPLE_S)
        for name, process in watched.items():
            series[name].add(loop.time() - began, process)
        await look()
    return series


def table(series: dict[str, Series], from_s: float) -> set[str]:
    """Print the series; return which are flat."""
    print(
        f"RSS in MiB at the start, each minute's median, at the end; slope from {from_s:.0f} s on"
    )
    print("| process | start | each minute | end | KiB/min | rise | flat | files | threads | CPU |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    verdicts = {name: judge(each, from_s) for name, each in series.items()}
    for name, each in series.items():
        verdict = verdicts[name]
        print(
            f"| {name} | {_mib(each.rss[0])} | {' '.join(map(_mib, _by_minute(each)))} "
            f"| {_mib(each.rss[-1])} | {verdict.slope_kib_a_minute:+.1f} | {verdict.rise:+.2%} "
            f"| {'yes' if verdict.is_flat else 'NO'} | {_ends(each.files)} | {_ends(each.threads)} "
            f"| {statistics.fmean(each.cpu):.0f} % |"
        )
    return {name for name, verdict in verdicts.items() if verdict.is_flat}


def _by_minute(series: Series) -> list[float]:
    groups = itertools.groupby(
        zip(series.at_s, series.rss, strict=True), key=lambda pair: int((pair[0] - 0.1) / 60)
    )
    return [statistics.median(rss for _, rss in group) for _, group in groups]


def _mib(size: float) -> str:
    return f"{size / KIB / KIB:.1f}"


def _ends(counts: Sequence[int]) -> str:
    return f"{counts[0]} to {counts[-1]}"
