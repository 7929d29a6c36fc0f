# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a request costs, in processor time of each process, as everything around it grows.

Run from the project's root: ``python -m tests.benchmarks.growth [AXIS ...]``. For each point of an
axis it starts a site of its own (real processes, all of them on this machine, with keys,
permissions, admission, usage records, metrics and the token log), lets it rest, keeps it busy, and
prints medians. Needs gcc. Bounded: all axes with three runs take about half an hour.

Processor time is what is told because it means the same on a busy machine as on a quiet one.
"""

import argparse
import asyncio
import itertools
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.growth.asking import Asking, Cost, chats, lists, prompts, streams
from tests.benchmarks.growth.ground import Size, ground
from tests.benchmarks.programs import compiled, mock_backend
from tests.ports import free_port

KINDS = ("gateway", "scheduler", "neuron", "nats", "provisioner", "portal")
KIB, MIB = 1024, 1024 * 1024
STREAM_POINTS = (100, 1000, 5000)
SIZES = {"1 KB": KIB, "64 KB": 64 * KIB, "1 MB": MIB, "4 MB": 4 * MIB, "12 MB": 12 * MIB}
SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Point:
    """One point of an axis."""

    label: str
    size: Size
    asking: Asking


AXES: Mapping[str, Sequence[Point]] = {
    "neurons": [Point(str(n), Size(neurons=n), chats) for n in (1, 10, 100, 1000)],
    "models": [Point(str(n), Size(models=n), chats) for n in (1, 1000)],
    "lists": [Point(f"{n} models", Size(models=n), lists) for n in (1, 1000)],
    "keys": [Point(str(n), Size(keys=n), chats) for n in (10, 100_000)],
    "streams": [Point(str(n), Size(), streams(n)) for n in STREAM_POINTS],
    "sizes": [Point(label, Size(), prompts(size)) for label, size in SIZES.items()],
    "gateways": [Point(str(n), Size(gateways=n), chats) for n in (1, 2, 4)],
    "hosts": [Point(str(n), Size(hosts=n), chats) for n in (1, 2, 4)],
}


async def measure(points: Sequence[Point], runs: int, cache: Path) -> list[list[Cost]]:
    """Measure each point so often, in turn: what else the machine does then falls on all alike."""
    found: list[list[Cost]] = [[] for _ in points]
    for _ in range(runs):
        # Points that want the same site share one.
        for size, group in itertools.groupby(zip(points, found, strict=True), _size_of):
            await _measure_once(size, list(group), cache)
    return found


def _size_of(pair: tuple[Point, list[Cost]]) -> Size:
    return pair[0].size


async def _measure_once(size: Size, pairs: Sequence[tuple[Point, list[Cost]]], cache: Path) -> None:
    programs = [compiled(name, cache) for name in ("mock_backend", "load_generator")]
    with tempfile.TemporaryDirectory() as directory:
        async with (
            mock_backend(programs[0], free_port()) as backend,
            ground(Path(directory), backend, size) as site,
        ):
            await asyncio.sleep(SETTLE_S)
            for point, found in pairs:
                found.append(await point.asking(site, programs[1]))


def table(axis: str, points: Sequence[Point], found: Sequence[Sequence[Cost]]) -> str:
    """Return what was found as a table: medians, and the range of the sums."""
    kinds = [kind for kind in KINDS if kind in found[0][0].us]
    unit = found[0][0].unit
    lines = [
        f"| {axis} | all, us per {unit} | {' | '.join(kinds)} | at rest: {' | '.join(kinds)} | |",
        "|---" * (2 * len(kinds) + 3) + "|",
    ]
    for point, costs in zip(points, found, strict=True):
        sums = [sum(cost.us[kind] for kind in kinds) for cost in costs]
        us = [f"{statistics.median(cost.us[kind] for cost in costs):.0f}" for kind in kinds]
        rest = [
            f"{statistics.median(cost.rest[kind] for cost in costs):.1%}, "
            f"{max(cost.rss_mib[kind] for cost in costs):.0f} MiB"
            for kind in kinds
        ]
        spread = f"{statistics.median(sums):.0f} ({min(sums):.0f} to {max(sums):.0f})"
        notes = "; ".join(sorted({cost.note for cost in costs if cost.note}))
        cells = [point.label, spread, *us, *rest, notes]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("axis", nargs="*", help=f"of {', '.join(AXES)}; none: all")
    parser.add_argument("--runs", type=int, default=3)
    told = parser.parse_args()
    unknown = set(told.axis) - AXES.keys()
    if unknown:
        parser.error(f"there is no axis {', '.join(sorted(unknown))}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    cache = Path(tempfile.gettempdir()) / f"helexa-benchmarks-{os.getuid()}"
    for axis in told.axis or AXES:
        found = asyncio.run(measure(AXES[axis], told.runs, cache))
        print(table(axis, AXES[axis], found), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
