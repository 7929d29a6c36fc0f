# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What it brings to send prompts where their beginning was read before.

Run from the project's root: ``python -m tests.benchmarks.affinity``. The first table comes from a
simulation of real schedulers (`tests/scheduler/simulation.py`), one and eight of them. The
second one is measured: two sites of three neurons, with and without affinity, are asked in turn for
answers of the embedded model to long prompts that begin alike. About five minutes.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean, median

import httpx
from tests.scheduler.simulation import Result, Shape, Simulation
from tests.site_up.site import MODEL, site_up

SHAPE = Shape()
NEURONS = 3
WORDS = ("the", "capital", "of", "Norway", "is", "Oslo", "count", "to", "red", "blue", "what")
PROMPT_WORDS = 900
"""About 1,600 tokens; the model's slots have 2,048."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer."""

    first_token_s: float
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Round:
    """Some questions that share a few system prompts, none of which was asked before."""

    answers: list[Answer]

    @property
    def hit_percent(self) -> float:
        """How many of the prompts' tokens had been read before."""
        known = sum(each.cached_tokens for each in self.answers)
        return 100 * known / sum(each.prompt_tokens for each in self.answers)

    @property
    def median_ms(self) -> float:
        """Time to first token."""
        return 1000 * median(each.first_token_s for each in self.answers)

    @property
    def mean_ms(self) -> float:
        """Time to first token."""
        return 1000 * fmean(each.first_token_s for each in self.answers)


async def simulate() -> None:
    """Print the first table."""
    everything = SHAPE.cache_bytes * SHAPE.neurons
    rows = {
        "one neuron that has it all": replace(
            SHAPE, neurons=1, slots=SHAPE.slots * SHAPE.neurons, cache_bytes=10 * everything
        ),
        "without affinity": replace(SHAPE, prefix_affinity=False),
        "one scheduler": SHAPE,
        "eight schedulers": replace(SHAPE, replicas=8),
    }
    print("| | of prompts known | first token, median | mean | busiest neuron | most served |")
    print("|---|---|---|---|---|---|")
    for name, shape in rows.items():
        show_result(name, await Simulation(shape).run())


def show_result(name: str, found: Result) -> None:
    """Print one row."""
    print(
        f"| {name} | {found.hit_percent:.1f}% | {1000 * found.first_token_median_s:.0f} ms "
        f"| {1000 * fmean(found.first_token_s):.0f} ms | {found.busiest_share:.2f} x mean "
        f"| {found.most_served:.2f} x mean |",
        flush=True,
    )


@contextlib.asynccontextmanager
async def site(folder: Path, *, prefix_affinity: bool) -> AsyncIterator[httpx.AsyncClient]:
    """Run a site and yield a client of its gateway."""
    variables = {"HELEXA_SCHEDULER_PREFIX_AFFINITY": str(prefix_affinity).lower()}
    counts = ("--schedulers", "2", "--neurons", str(NEURONS))
    async with (
        site_up(folder, *counts, variables=variables) as running,
        httpx.AsyncClient(base_url=running.base_url, timeout=120) as client,
        running.orchestrator() as orchestrator,
    ):
        path = f"/api/models/{MODEL}"
        while (await orchestrator.get(path)).text.count('"loaded"') < NEURONS:
            # A short answer takes a moment, and is a sign that there is a site at all.
            await client.post("/completions", json={"model": MODEL, "prompt": "a", "max_tokens": 1})
        yield client


async def ask(client: httpx.AsyncClient, system: str, question: str) -> Answer:
    """Stream one answer."""
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 8,
    }
    began = time.perf_counter()
    first_s: float | None = None
    usage: dict[str, dict[str, int]] = {}
    counts: dict[str, int] = {}
    async with client.stream("POST", "/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if '"content":"' in line and first_s is None:
                first_s = time.perf_counter() - began
            if '"usage":{' in line:
                counts = usage = json.loads(line.removeprefix("data: "))["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Answer(first_s or 0.0, counts["prompt_tokens"], cached)


async def ask_round(client: httpx.AsyncClient, number: int, options: argparse.Namespace) -> Round:
    """Ask the questions of one round, so many at a time."""
    random = Random(number)  # noqa: S311 - the same for every site
    prompts = [
        " ".join(random.choices(WORDS, k=PROMPT_WORDS)) for _ in range(options.system_prompts)
    ]
    weights = [1 / rank for rank in range(1, len(prompts) + 1)]
    chosen = random.choices(prompts, weights, k=options.questions)
    answers: list[Answer] = []
    left = iter(enumerate(chosen))

    async def caller() -> None:
        for place, prompt in left:
            answers.append(await ask(client, prompt, f"Question {place}?"))

    await asyncio.gather(*(caller() for _ in range(options.callers)))
    return Round(answers)


async def measure(options: argparse.Namespace) -> None:
    """Print the second table."""
    rounds: dict[str, list[Round]] = {"without affinity": [], "with affinity": []}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            site(Path(folder) / "off", prefix_affinity=False) as off,
            site(Path(folder) / "on", prefix_affinity=True) as on,
        ):
            for number in range(options.repetitions):
                pairs = list(zip(rounds, (off, on), strict=True))
                # Which one is first changes, so that what else the machine does is shared.
                for name, client in pairs if number % 2 else reversed(pairs):
                    rounds[name].append(await ask_round(client, number, options))
    print("\n| | of prompts known | first token, median | mean |\n|---|---|---|---|")
    for name, found in rounds.items():
        columns = (
            ([each.hit_percent for each in found], "%"),
            ([each.median_ms for each in found], " ms"),
            ([each.mean_ms for each in found], " ms"),
        )
        shown = [
            f"{median(values):.0f}{unit} ({min(values):.0f}-{max(values):.0f})"
            for values, unit in columns
        ]
        print(f"| {name} | {' | '.join(shown)} |")


async def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["simulation", "sites"])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--system-prompts", type=int, default=6)
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--callers", type=int, default=2, help="questions at a time")
    options = parser.parse_args()
    if options.only != "sites":
        await simulate()
    if options.only != "simulation":
        await measure(options)


if __name__ == "__main__":
    asyncio.run(main())
