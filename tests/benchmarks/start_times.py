# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How long each process takes to start and what memory it needs: a table of medians.

Run from the project's root: ``python -m tests.benchmarks.start_times``. It starts a site of its own
(one of everything, a paced engine as the backend), then restarts one process after the other while
the rest runs, so that a start waits for nobody: what is shown is what the process itself takes.

- imports: processor time of an interpreter that imports the process's modules and ends.
- ready: from the start until `/readyz` answers 200; on a busy machine it grows, and the processor
  time spent by then does not.
- memory: resident, once ready; then, in that same process, while and after streams were open.
"""

import argparse
import asyncio
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tests.faults.order import Order
from tests.faults.site import Process, Site
from tests.faults.streams import Stream

MIB = 1024 * 1024
LOOK_S = 0.005
READY_WITHIN_S = 60.0
PACE, LOAD_S = 5.0, 5.0
"""Tokens a second of each stream, and how long it is open."""


@dataclass
class Row:
    """What was measured of one process."""

    service: str
    imports_s: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    used_s: list[float] = field(default_factory=list)
    idle_bytes: list[int] = field(default_factory=list)
    open_bytes: int = 0
    after_bytes: int = 0

    def line(self) -> str:
        """Return the row of the table."""
        cells = [_range(each) for each in (self.imports_s, self.ready_s, self.used_s)]
        sizes = (int(statistics.median(self.idle_bytes)), self.open_bytes, self.after_bytes)
        return f"| {' | '.join((self.service, *cells, *(f'{size / MIB:.0f}' for size in sizes)))} |"


def imports_s(service: str) -> float:
    """Return the processor time of importing all that `service` starts with."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run((sys.executable, "-c", f"import helexa.{service}.__main__"), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def restart(process: Process, row: Row, http: httpx.AsyncClient) -> None:
    """Stop and start one process, and note how its start went."""
    process.signal(signal.SIGTERM)
    await process.ended()
    began = time.perf_counter()
    process.start()
    async with asyncio.timeout(READY_WITHIN_S):
        while not await _is_ready(process, http):
            await asyncio.sleep(LOOK_S)
    row.ready_s.append(time.perf_counter() - began)
    times = psutil.Process(process.pid).cpu_times()
    row.used_s.append(times.user + times.system)
    row.idle_bytes.append(_rss(process))


async def stream(site: Site, rows: dict[str, Row], count: int) -> None:
    """Note what memory each process needs while `count` streams are open, and afterwards."""
    order = Order(tokens=int(PACE * LOAD_S), pace=PACE)
    streams = [Stream(site.gateways[0], order.prompt()) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(each.ask()) for each in streams]
        async with asyncio.timeout(READY_WITHIN_S):
            await asyncio.gather(*(each.began.wait() for each in streams))
        for name, row in rows.items():
            row.open_bytes = _rss(site.processes[name])
    assert all(task.done() for task in asking)
    wrong = sum(each.text != order.text() for each in streams)
    if wrong:
        print(f"{wrong} of {count} streams did not end as they should")
    for name, row in rows.items():
        row.after_bytes = _rss(site.processes[name])


async def measure(site: Site, rounds: int, streams: int) -> list[Row]:
    """Return a row for each service of a running site."""
    await site.add_model(slots=streams)
    await site.until_serving()
    rows = {
        name: Row(name.partition("-")[0] if name not in site.neuron_names else "neuron")
        for name, process in site.processes.items()
        if process.link is not None
    }
    async with httpx.AsyncClient(timeout=5) as http:
        for _ in range(rounds):
            for name, row in rows.items():
                row.imports_s.append(await asyncio.to_thread(imports_s, row.service))
                await restart(site.processes[name], row, http)
    await site.until_serving()
    await stream(site, rows, streams)
    return list(rows.values())


def show(rows: Sequence[Row], rounds: int, streams: int) -> None:
    """Print the table."""
    print(f"Medians of {rounds} starts, in brackets the range; memory in MiB, {streams} streams")
    print("| process | imports, CPU s | ready, s | by then, CPU s | idle | streams open | after |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(row.line())


async def _is_ready(process: Process, http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get(process.ready_url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        if not process.is_running:
            raise AssertionError(f"{process.name} has ended\n{process.last_words()}") from None
        return False


def _rss(process: Process) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


async def run(rounds: int, streams: int) -> None:
    """Measure a site of its own."""
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory) / "site", replicas=1, neurons=1)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(site.stop)
            await site.start(stack)
            show(await measure(site, rounds, streams), rounds, streams)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="starts of each process (5)")
    parser.add_argument("--streams", type=int, default=100, help="open at the same time (100)")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.rounds, arguments.streams))


if __name__ == "__main__":
    main()
