# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a scheduler's decision and a neuron's report cost, by the number of neurons.

Run from the project's root: ``python -m tests.benchmarks.decisions``. CPU time of this process; the
best of several rounds, because what else runs can only add to it. Takes a few seconds.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from random import Random

from helexa.bus.buckets import Entry
from helexa.process.metrics import Metrics
from helexa.protocol.codec import pack, unpack
from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelState,
    ModelStatus,
)
from helexa.protocol.messages.neurons import GpuSummary, HardwareSummary, NeuronStatus
from helexa.protocol.messages.routing import Feedback, Outcome, ScheduleRequest
from helexa.protocol.prefixes import digest_prefixes
from helexa.protocol.reports import read_report
from helexa.scheduler.service import Limits, Scheduler

MODEL = ModelId("org/model-7b")
REPORTED = 128
ROUNDS = 100
HARDWARE = HardwareSummary(
    cpu_model="Example 9000",
    cpu_cores=16,
    memory_total_bytes=64 << 30,
    memory_free_bytes=32 << 30,
    gpus=tuple(
        GpuSummary(index=place, uuid=f"GPU-{place}", name="Example", memory_total_bytes=80 << 30)
        for place in range(2)
    ),
)


class OneModel:
    """A catalogue of one model."""

    is_fresh = True

    def __init__(self) -> None:
        self.entries = {str(MODEL): Entry(ModelConfig(model=MODEL, backend_kind="vllm"), 1)}

    async def get(self, key: str) -> ModelConfig | None:
        """Return the configuration of a model."""
        return self.entries[key].value


def status(number: int, sequence: int, read: bytes) -> NeuronStatus:
    """Return a report; slots are so many that no measurement fills them."""
    model = ModelStatus(
        model=MODEL,
        state=ModelState.LOADED,
        slots_total=10**7,
        slots_busy=number % 7,
        capability=ModelCapability(max_context_tokens=32768),
        prefix_digests=read,
    )
    return NeuronStatus(
        neuron_id=f"neuron-{number}",
        instance="i",
        sequence=sequence,
        slots_total=10**7,
        slots_busy=number % 7,
        models=(model,),
        hardware=HARDWARE,
    )


def site(neurons: int, random: Random) -> Scheduler:
    """Return a scheduler that knows so many neurons and what they have done."""
    scheduler = Scheduler(
        OneModel(), Metrics("scheduler", "s"), instance="s", limits=Limits(stale_after_s=3600)
    )
    for number in range(neurons):
        told = status(number, 1, random.randbytes(8 * REPORTED))
        scheduler.take_report(read_report(pack(told)))
    outcomes = tuple(
        Outcome(neuron_id=f"neuron-{number}", model=MODEL, completed=5, first_token_s=(0.1,))
        for number in range(neurons)
    )
    scheduler.take_feedback(Feedback(gateway="g", outcomes=outcomes))
    return scheduler


async def cost(step: Callable[[], Awaitable[object]], times: int) -> float:
    """Return microseconds of CPU a step, of the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            await step()
        best = min(best, (time.process_time() - began) / times)
    return best * 1e6


async def measure(neurons: int, prompt: bytes, random: Random) -> tuple[float, float, float]:
    """Return the cost of a decision, of its messages, and of a report of one prompt more."""
    scheduler = site(neurons, random)
    asked = ScheduleRequest(
        request_id="gateway.abcdefghijklmnopqrstuvwxyz",
        model=MODEL,
        workload="ChatInteractive",
        needs=("chat",),
        prompt_tokens=len(prompt) // 4,
        max_tokens=100,
        prefix_hash="0" * 32,
        prefix_digests=digest_prefixes(prompt),
    )
    data = pack(asked)
    decision = await scheduler.schedule(asked)
    read = random.randbytes(8 * (REPORTED + 2))
    # One prompt more has been read: two digests are new, two are gone.
    told = (status(0, 2, read[:-16]), status(0, 2, read[16:]))
    reports = itertools.cycle(pack(each) for each in told)

    async def messages() -> None:
        unpack(ScheduleRequest, data)
        pack(decision)

    async def hear() -> None:
        scheduler.take_report(read_report(next(reports)))

    decide_us = await cost(lambda: scheduler.schedule(asked), 20)
    return decide_us, await cost(messages, 20), await cost(hear, 20)


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, nargs="+", default=[1, 3, 10, 100, 500, 1000])
    parser.add_argument("--prompt-bytes", type=int, default=6000)
    options = parser.parse_args()
    random = Random(1)  # noqa: S311 - made-up prompts
    prompt = random.randbytes(options.prompt_bytes)
    print("| neurons | decide, us | messages, us | report, us |\n|---|---|---|---|")
    for neurons in options.neurons:
        decide, messages, heard = await measure(neurons, prompt, random)
        print(f"| {neurons} | {decide:.0f} | {messages:.0f} | {heard:.0f} |")
    sizes = [len(pack(status(0, 1, read))) for read in (b"", random.randbytes(8 * REPORTED))]
    print(f"\nA report has {sizes[0]} bytes, with all digests that it may name {sizes[1]}.")


if __name__ == "__main__":
    asyncio.run(main())
