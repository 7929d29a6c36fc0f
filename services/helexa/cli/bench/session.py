# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A whole run: one request to try it out, then step after step."""

import asyncio
import gc
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import uvloop

from helexa.cli.bench.endpoint import Endpoint
from helexa.cli.bench.level import Figures
from helexa.cli.bench.load import Load
from helexa.cli.bench.plan import Plan, Step
from helexa.cli.bench.progress import Progress
from helexa.cli.bench.prompts import requests
from helexa.cli.bench.table import Run
from helexa.cli.bench.trial import first_model, try_out
from helexa.process.limits import allow_open_files


def measure(plan: Plan, endpoint: Endpoint, model: str | None, progress: Progress) -> Run:
    """Return what was measured, also when SIGINT or SIGTERM ended it early.

    Raises:
        UnavailableError: nobody answers.
        AnswerError: the first answer is no success.
    """
    allow_open_files()
    session = _Session(plan, endpoint, progress, model or "")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(session.run())


@dataclass(slots=True)
class _Session:
    plan: Plan
    endpoint: Endpoint
    progress: Progress
    model: str
    trial_s: float = 0.0
    figures: list[Figures] = field(default_factory=list)

    async def run(self) -> Run:
        was_interrupted = False
        task = asyncio.current_task()
        if task is not None:
            # The runner does the same for SIGINT.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await self._steps(await self._prepare())
        except asyncio.CancelledError:
            was_interrupted = True
        finally:
            self.progress.clear()
        return Run(
            url=self.endpoint.url,
            model=self.model,
            max_tokens=self.plan.asked.max_tokens,
            trial_s=self.trial_s,
            was_interrupted=was_interrupted,
            figures=tuple(self.figures),
        )

    async def _prepare(self) -> Callable[[bool], Iterator[bytes]]:
        self.progress.say(f"asking {self.endpoint.url} once")
        self.model = self.model or await first_model(self.endpoint)
        asked = requests(self.endpoint, self.model, self.plan.asked, secrets.token_hex(4))
        streamed = self.plan.steps[0].streamed
        self.trial_s = await try_out(self.endpoint, asked(streamed), streamed=streamed)
        return asked

    async def _steps(self, asked: Callable[[bool], Iterator[bytes]]) -> None:
        # What was made so far stays: the collector need not look at it while time is taken.
        gc.collect()
        gc.freeze()
        try:
            for step in self.plan.steps:
                await self._step(step, asked(step.streamed))
        finally:
            gc.unfreeze()

    async def _step(self, step: Step, asked: Iterator[bytes]) -> None:
        self.progress.say(step.name)
        load = Load(self.endpoint, asked, step, self.plan.limits)
        try:
            await load.run(self.progress.tick)
        finally:
            if load.level.started:
                self.figures.append(load.figures())
