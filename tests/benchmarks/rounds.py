# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The order in which everything is asked: in every phase each target, one after the other."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.accounting import cpu_s, memory_mib, since
from tests.benchmarks.figures import Run
from tests.benchmarks.phases import IDLE, STREAM_64, WHOLE_16, Phase
from tests.benchmarks.programs import MockBackend, Timing, generate
from tests.benchmarks.targets import Target

CALM_S = 0.4
CALM_CPU_S = 0.1
"""A target that uses no more than this in `CALM_S` has done with the last load."""
CALM_WITHIN_S = 60.0
NO_LOAD = {"answers": 0.0, "tokens": 0.0, "failed": 0.0, "wrong": 0.0}


@dataclass
class Bench:
    """Asks targets and notes what they did."""

    backend: MockBackend
    generator: Path
    timing: Timing
    tell: Callable[[str], None]
    runs: list[Run] = field(default_factory=list)

    async def rounds(
        self, targets: list[Target], phases: Iterable[Phase], repetitions: int
    ) -> list[Run]:
        """Return the runs of all phases; the targets take turns at being the first."""
        alive = {target.name for target in targets}
        for target in targets:
            self.tell(f"warming up: {target.name}")
            await self._warm_up(target)
        for repetition in range(repetitions):
            first = repetition % max(1, len(targets))
            turns = targets[first:] + targets[:first]
            for phase in phases:
                if phase is IDLE:
                    await self._idle(turns, repetition)
                    continue
                self.tell(f"repetition {repetition + 1} of {repetitions}: {phase.name}")
                for target in turns:
                    if target.name in alive and not await self._ask(target, phase, repetition):
                        alive.discard(target.name)
        return self.runs

    async def _ask(self, target: Target, phase: Phase, repetition: int) -> bool:
        """Note one run; return whether the target can be asked again."""
        processes = target.processes()
        used: list[dict[str, float]] = []
        memory: dict[str, list[float]] = {}

        def border() -> None:
            # In this order: reading the memory of many processes takes its time.
            used.append(cpu_s(processes))
            if len(used) > 1:
                memory.update(memory_mib(processes))

        try:
            load = await generate(self.generator, target.address, phase, self.timing, border)
        except (RuntimeError, TimeoutError) as error:
            self.tell(f"{target.name} is asked no more, after {phase.name}: {error!r}")
            return False
        spent = since(*used)
        self.runs.append(Run(target.name, phase.name, repetition, load, spent, memory))
        await self._until_calm(target, phase)
        return True

    async def _warm_up(self, target: Target) -> None:
        """Let every worker load what it loads with its first requests."""
        for phase in (WHOLE_16, STREAM_64):
            with contextlib.suppress(RuntimeError, TimeoutError):
                await generate(self.generator, target.address, phase, self.timing, lambda: None)
            await self._until_calm(target, phase)

    async def _until_calm(self, target: Target, phase: Phase) -> None:
        """Return when nothing of the load is left to do."""
        try:
            async with asyncio.timeout(CALM_WITHIN_S):
                await self.backend.until_idle()
                processes, used = target.processes(), CALM_CPU_S + 1
                while processes and used > CALM_CPU_S:
                    before = sum(cpu_s(processes).values())
                    await asyncio.sleep(CALM_S)
                    used = sum(cpu_s(processes).values()) - before
        except TimeoutError:
            self.tell(f"{target.name} is still at work {CALM_WITHIN_S:.0f} s after {phase.name}")

    async def _idle(self, targets: list[Target], repetition: int) -> None:
        """Note what all targets use while nobody asks anything."""
        watched = [(target, target.processes()) for target in targets]
        before = [cpu_s(processes) for _, processes in watched]
        await asyncio.sleep(self.timing.duration_s)
        load = NO_LOAD | {"duration_s": self.timing.duration_s}
        for (target, processes), spent in zip(watched, before, strict=True):
            used = since(spent, cpu_s(processes))
            memory = memory_mib(processes)
            self.runs.append(Run(target.name, IDLE.name, repetition, load, used, memory))
