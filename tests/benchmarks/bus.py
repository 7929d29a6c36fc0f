# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the bus itself costs: CPU of one request, publish and callback, with a real nats-server.

Run as ``python -m tests.benchmarks.bus``. One process asks and publishes, another one serves and
subscribes; both run on uvloop, as the services do.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import uvloop
from tests.conftest import Broker
from tests.protocol.examples import EXAMPLES

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.context import REQUEST_ID
from helexa.bus.service import Service
from helexa.protocol import subjects
from helexa.protocol.codec import pack, unpack
from helexa.protocol.frames import FrameKind, pack_frame
from helexa.protocol.messages.execution import ExecuteReply, ExecuteRequest
from helexa.protocol.messages.models import ModelId
from helexa.protocol.messages.routing import RoutingDecision, ScheduleRequest, Target

NODE = "n1"
FRAMES = subjects.subject_of(subjects.TOKENS, home="g1", author=NODE, request="x" * 26)
HEARD = "bench.heard"
US = 1e6

SCHEDULE = ScheduleRequest(
    request_id="g1.abcdefghijklmnopqrstuvwxyz", model=ModelId("m"), workload="ChatInteractive"
)
DECISION = RoutingDecision(
    decision_id="abcdefghijklmnop",
    model=ModelId("m"),
    targets=(Target(neuron_id=NODE, score=0.25, reasons={"load": 0.1, "affinity": 0.0}),),
    scheduler="s1",
)
EXECUTE = ExecuteRequest(
    request_id=SCHEDULE.request_id,
    home="g1",
    owner="g1",
    decision_id=DECISION.decision_id,
    model=ModelId("m"),
    operation="chat",
    public_id="chatcmpl-abcdefghijklmnop",
    body=b'{"model":"m","messages":[{"role":"user","content":"hello"}]}' + b" " * 200,
    account="a" * 64,
)
MESSAGES = (SCHEDULE, DECISION, EXECUTE, ExecuteReply(neuron_id=NODE), EXAMPLES["NeuronStatus"])


def cpu_s(pid: int = 0) -> float:
    """Return the CPU time of a process (0: this one), to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2) if pid else time.process_time()


async def serve(url: str) -> None:
    """Serve and subscribe until the other side closes our standard input."""

    async def schedule(_: ScheduleRequest) -> RoutingDecision:
        return DECISION

    async def execute(_: ExecuteRequest) -> ExecuteReply:
        return ExecuteReply(neuron_id=NODE)

    heard = 0

    def hear(_: str, __: bytes) -> None:
        nonlocal heard
        heard += 1

    async def count(_: ExecuteRequest) -> ExecuteReply:
        return ExecuteReply(neuron_id=NODE, slots_free=heard)

    async with Bus(Connection((url,), "bench-server")) as bus:
        service = Service(bus, "bench", instance="i", version="1")
        await service.serve(subjects.SCHEDULE, schedule, queue="s")
        await service.serve(subjects.EXECUTE, execute, neuron=NODE)
        await service.serve(subjects.EXECUTE, count, neuron="count")
        await bus.subscribe_raw(FRAMES, hear)
        await bus.client.flush()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def peer(url: str) -> Iterator[int]:
    """Run the serving side; yields its process id."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.bus", "--serve", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


async def requests(
    name: str, ask: Callable[[], Awaitable[object]], pid: int, *, at_once: int, n: int
) -> None:
    """Print what `n` requests cost on both sides."""
    took: list[float] = []

    async def worker(times: int) -> None:
        for _ in range(times):
            began = time.perf_counter()
            await ask()
            took.append(time.perf_counter() - began)

    await worker(200)
    took.clear()
    before = cpu_s(), cpu_s(pid)
    await asyncio.gather(*(worker(n // at_once) for _ in range(at_once)))
    caller, server = (cpu_s() - before[0]) / n * US, (cpu_s(pid) - before[1]) / n * US
    p50 = statistics.median(took) * US
    print(f"| {name} | {at_once} | {caller:.1f} | {server:.1f} | {p50:.0f} |")


async def frames(bus: Bus, pid: int, *, burst: int, n: int) -> None:
    """Print what `n` raw publishes and callbacks cost, `burst` of them in each turn of the loop."""
    data = pack_frame(1, 2, 3, FrameKind.DATA, 1, b"x" * 250)

    async def heard() -> int:
        return (
            await bus.request(subjects.EXECUTE, EXECUTE, deadline_s=10, neuron="count")
        ).slots_free

    first = await heard()
    before = cpu_s(), cpu_s(pid)
    for _ in range(n // burst):
        for _ in range(burst):
            await bus.publish_raw(FRAMES, data)
        await asyncio.sleep(0)
    published = (cpu_s() - before[0]) / n * US
    while await heard() < first + n:
        pass
    callback = (cpu_s(pid) - before[1]) / n * US
    print(f"| {burst} | {published:.2f} | {callback:.2f} |")


def codec() -> None:
    """Print what packing and unpacking cost."""
    print("\n| message | bytes | pack us | unpack us |\n|---|---|---|---|")
    for message in MESSAGES:
        data, kind = pack(message), type(message)
        packed = cost_us(partial(pack, message))
        unpacked = cost_us(partial(unpack, kind, data))
        print(f"| {kind.__name__} | {len(data)} | {packed:.2f} | {unpacked:.2f} |")


def cost_us(act: Callable[[], object], times: int = 5000) -> float:
    """Return the CPU time of one `act`."""
    best = float("inf")
    for _ in range(3):
        before = cpu_s()
        for _ in range(times):
            act()
        best = min(best, cpu_s() - before)
    return best / times * US


async def measure(url: str, pid: int, n: int) -> None:
    """Print the tables."""
    async with Bus(Connection((url,), "bench-caller")) as bus:
        await bus.wait_connected()
        REQUEST_ID.set(SCHEDULE.request_id)

        def schedule() -> Awaitable[object]:
            return bus.request(subjects.SCHEDULE, SCHEDULE, deadline_s=10)

        def execute() -> Awaitable[object]:
            return bus.request(subjects.EXECUTE, EXECUTE, deadline_s=10, neuron=NODE)

        print("| request | at once | caller us | server us | p50 us |\n|---|---|---|---|---|")
        for at_once in (1, 16):
            await requests("schedule", schedule, pid, at_once=at_once, n=n)
            await requests("execute", execute, pid, at_once=at_once, n=n)
        print("\n| publishes a turn | publish us | callback us |\n|---|---|---|")
        for burst in (1, 4, 16):
            await frames(bus, pid, burst=burst, n=4 * n)


def main() -> None:
    """Run both sides, or the serving one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("-n", type=int, default=8000, help="requests of each kind")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            with peer(broker.url) as pid:
                uvloop.run(measure(broker.url, pid, options.n))
        finally:
            broker.stop()
    codec()


if __name__ == "__main__":
    main()
