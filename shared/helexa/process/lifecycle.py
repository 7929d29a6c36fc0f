# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The life of a service process, the same for all: start, run until asked to stop, drain, exit."""

import asyncio
import faulthandler
import gc
import inspect
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from helexa.bus.client import Bus
from helexa.process.limits import allow_open_files
from helexa.process.logs import write_logs_at_once
from helexa.process.settings import SettingsError
from helexa.process.signals import Stop, stop_on_signals
from helexa.protocol.errors import HelexaError

_log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_USAGE = 2
STOP_WITHIN_S = 35.0
BEYOND_GRACE_S = 15.0
"""What a process may take to end, beyond the grace that its accepted work has."""
_BLOCKED_S = 1.0
_NEW_OBJECTS = 10_000
"""So many more objects than before are made before the collector looks for cycles among them.
Looking more often cost a tenth of the CPU of 800 streams (measured)."""
_LOOKS = 2
"""After more looks than that, it looks at what has outlived one, and again among what has outlived
two. A stream outlives several and leaves a few cycles: at Python's ten, 400 paced streams grew a
gateway by 10 MiB each half minute (measured)."""


class Life:
    """What runs in a process: background tasks whose death ends it, and steps for its end."""

    def __init__(self, stop: Stop) -> None:
        """Collect tasks and resources until `stop`."""
        self.stop = stop
        self.resources = AsyncExitStack()
        """Entered in order, left in reverse after the stop."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside everything else. If it ends by an error, the process stops."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._on_done)

    async def watch(self, bus: Bus) -> None:
        """Stop the process if the bus gives up."""

        async def until_closed() -> None:
            await bus.closed.wait()
            if not self.stop.is_asked:
                self.stop.ask("the bus closed", exit_code=EXIT_FAILED)

        self.run("bus-watch", until_closed())

    async def end(self) -> None:
        """Leave the resources in reverse order, then cancel the background tasks."""
        try:
            await self.resources.aclose()
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.stop.is_asked:
            return
        error = task.exception()
        if error is not None:
            _log.error("task_died", extra={"task": task.get_name()}, exc_info=error)
            self.stop.ask(f"{task.get_name()} died", exit_code=EXIT_FAILED)


def run_process(
    main: Callable[[Life], Awaitable[None]], *, stop_within_s: float = STOP_WITHIN_S
) -> int:
    """Run a service: `main` sets it up, then it lives until a signal or a dead task ends it.

    Returns the exit code: 0 after a clean stop, 1 after a failure, 2 for a setting that is wrong
    (said in one line). Whatever hangs, the process is gone `stop_within_s` after it was asked to
    stop, with 1, and has written what it waited for.
    """
    allow_open_files()
    try:
        return uvloop.run(_live(main, stop_within_s))
    finally:
        write_logs_at_once()
        faulthandler.cancel_dump_traceback_later()


async def _live(main: Callable[[Life], Awaitable[None]], stop_within_s: float) -> int:
    async with stop_on_signals() as stop:
        life = Life(stop)
        setting_up = asyncio.ensure_future(main(life))
        asked = asyncio.create_task(stop.wait())
        asked.add_done_callback(lambda _: _end_within(stop_within_s))
        try:
            await asyncio.wait({setting_up, asked}, return_when=asyncio.FIRST_COMPLETED)
            if setting_up.done():
                setting_up.result()
                _settle_memory()
                await asked
            else:
                setting_up.cancel()
                await asyncio.gather(setting_up, return_exceptions=True)
        except SettingsError as error:
            sys.stderr.write(f"helexa: {error}\n")
            return EXIT_USAGE
        except HelexaError as error:
            sys.stderr.write(f"helexa: {error.message}\n")
            return EXIT_FAILED
        finally:
            asked.cancel()
            await life.end()
        _log.info("stopped", extra={"reason": stop.reason})
        return stop.exit_code


def _settle_memory() -> None:
    """Spare the collector what the start has made, and most of its looks at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _LOOKS, _LOOKS)


def _end_within(limit_s: float) -> None:
    # Who hangs is ended without another look at what has been said.
    write_logs_at_once()
    asyncio.get_running_loop().call_later(limit_s, _give_up)
    # A loop that is blocked, or a thread that is, runs no callback.
    faulthandler.dump_traceback_later(limit_s + _BLOCKED_S, exit=True)


def _give_up() -> None:
    waits = {task.get_name(): _place_of(task) for task in asyncio.all_tasks()}
    _log.error("stop_hung", extra={"tasks": waits})
    faulthandler.dump_traceback()
    os._exit(EXIT_FAILED)


def _place_of(task: asyncio.Task[Any]) -> str:
    awaited: object = task.get_coro()
    places: list[str] = []
    while inspect.iscoroutine(awaited):
        line = awaited.cr_frame.f_lineno if awaited.cr_frame else 0
        places.append(f"{awaited.cr_code.co_qualname}:{line}")
        awaited = awaited.cr_await
    return " > ".join(places)
