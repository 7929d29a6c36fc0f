# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Child processes: started in order, started again when they end, ended with their parent."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from helexa.process.childlines import ChildLines, OnLines
from helexa.process.lifecycle import EXIT_USAGE
from helexa.process.parent import die_with_parent
from helexa.process.restarts import RestartPolicy, Restarts
from helexa.protocol.errors import HelexaError

_log = logging.getLogger(__name__)

STOP_WITHIN_S = 9.0
"""All children together; below the ten seconds that container runtimes and people wait."""

_DRAIN_OUTPUT_S = 1.0

Ready = Callable[[], Awaitable[None]]


class ChildFailedError(HelexaError):
    """A child process does not stay up."""

    code = "child_failed"


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    """`None`: ours."""
    ready: Ready | None = None
    """Returns when the process can be used; asked anew after each start. `None`: at once."""
    stage: int = 0
    """Stages start in rising order, each once the one before is ready, and stop in falling order.
    Children of one stage start and stop together."""


class _Kept:
    """One child and its present process."""

    def __init__(self, child: Child, policy: RestartPolicy) -> None:
        self.child = child
        self.restarts = Restarts(policy)
        self.process: asyncio.subprocess.Process | None = None
        self.is_ready = asyncio.Event()
        self.tail: list[str] = []

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


def pass_on(_: str, lines: bytes) -> None:
    """Write a child's lines to our stderr as they are."""
    sys.stderr.buffer.write(lines)
    sys.stderr.buffer.flush()


class Supervisor:
    """Keeps child processes running, as an asynchronous context.

    Each child leads a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone
    and the children stop in order; the kernel ends them if the supervisor is killed.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        policy: RestartPolicy | None = None,
        on_lines: OnLines = pass_on,
        stop_within_s: float = STOP_WITHIN_S,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Keep what to run.

        Args:
            children: What to run.
            policy: How failures are treated.
            on_lines: Gets what a child writes to stderr, as it comes; stdout is ours.
            stop_within_s: How long all children together may take to stop; then they are killed.
            pause: Waits between two starts.
            chance: Spreads those waits; from 0 to 1.
        """
        policy = policy or RestartPolicy()
        self._kept = [_Kept(child, policy) for child in children]
        self._on_lines = on_lines
        self._stop_within_s = stop_within_s
        self._pause = pause
        self._chance = chance
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[ChildFailedError] | None = None
        self._tasks: dict[_Kept, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Start the children and return when all are ready.

        Raises:
            ChildFailedError: one does not stay up.
        """
        self._failure = asyncio.get_running_loop().create_future()
        try:
            for stage in sorted({kept.child.stage for kept in self._kept}):
                await self._start_stage([k for k in self._kept if k.child.stage == stage])
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the children."""
        await self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each child that runs now."""
        return {
            kept.child.name: kept.process.pid
            for kept in self._kept
            if kept.process is not None and kept.process.returncode is None
        }

    async def failed(self) -> ChildFailedError:
        """Return the reason when a child fails too often; wait for ever while none does."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Ask the children to end, stage by stage, and kill what does not end in time."""
        self._stopping.set()
        deadline = time.monotonic() + self._stop_within_s
        stages = sorted({kept.child.stage for kept in self._tasks}, reverse=True)
        for done, stage in enumerate(stages):
            asked = [kept for kept in self._tasks if kept.child.stage == stage]
            for kept in asked:
                kept.signal(signal.SIGTERM)
            share_s = max(0.0, deadline - time.monotonic()) / (len(stages) - done)
            await self._wait_ended(asked, share_s)
        await self._wait_ended(list(self._tasks), max(0.0, deadline - time.monotonic()))
        for kept, task in self._tasks.items():
            if not task.done():
                _log.warning("child_killed", extra={"child": kept.child.name})
                kept.signal(signal.SIGKILL)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _wait_ended(self, kept: list[_Kept], within_s: float) -> None:
        if kept:
            await asyncio.wait([self._tasks[each] for each in kept], timeout=within_s)

    async def _start_stage(self, stage: list[_Kept]) -> None:
        for kept in stage:
            self._tasks[kept] = asyncio.create_task(self._keep(kept), name=kept.child.name)
        waits = [asyncio.ensure_future(kept.is_ready.wait()) for kept in stage]
        failed = asyncio.ensure_future(self.failed())
        try:
            ready = asyncio.ensure_future(asyncio.wait(waits))
            await asyncio.wait({ready, failed}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if failed.done():
                raise failed.result()
        finally:
            for each in (*waits, failed):
                each.cancel()

    async def _keep(self, kept: _Kept) -> None:
        while not self._stopping.is_set():
            code = await self._run_once(kept)
            if self._stopping.is_set():
                return
            wait_s = kept.restarts.next_wait_s(time.monotonic(), self._chance())
            # A setting that is wrong stays wrong.
            if wait_s is None or code == EXIT_USAGE:
                self._report(kept, code)
                return
            _log.warning(
                "child_ended",
                extra={"child": kept.child.name, "code": code, "again_in_s": round(wait_s, 2)},
            )
            await self._pause_or_stop(wait_s)

    async def _run_once(self, kept: _Kept) -> int:
        kept.tail = []
        # A pipe of our own: asyncio's `wait` also waits for the end of the pipes it makes, which a
        # grandchild can hold open after the child has ended.
        reader, writer = os.pipe()
        lines = ChildLines(kept.child.name, self._on_lines)
        pipe = os.fdopen(reader, "rb", buffering=0)
        reading, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: lines, pipe)
        try:
            return await self._attend(kept, writer)
        finally:
            await asyncio.wait({lines.ended}, timeout=_DRAIN_OUTPUT_S)
            reading.close()
            kept.tail += lines.tail

    async def _attend(self, kept: _Kept, writer: int) -> int:
        try:
            process = await self._spawn(kept.child, writer)
        except OSError as error:
            kept.tail.append(f"{kept.child.argv[0]}: {error.strerror}")
            return EXIT_USAGE
        finally:
            os.close(writer)
        kept.process = process
        if self._stopping.is_set():
            kept.signal(signal.SIGTERM)
        readying = asyncio.create_task(self._become_ready(kept))
        readying.add_done_callback(self._on_ready_done)
        try:
            return await process.wait()
        finally:
            readying.cancel()
            # What the child itself has started must not outlive it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    async def _spawn(self, child: Child, writer: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *child.argv,
            env=child.env,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=writer,
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid()),
        )

    async def _become_ready(self, kept: _Kept) -> None:
        if kept.child.ready is not None:
            await kept.child.ready()
        kept.is_ready.set()

    def _on_ready_done(self, readying: asyncio.Task[None]) -> None:
        error = None if readying.cancelled() else readying.exception()
        if error is not None:
            self._fail(ChildFailedError(f"it is not known whether a child is ready: {error}"))

    def _report(self, kept: _Kept, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        said = "; it said last:\n" + "\n".join(kept.tail) if kept.tail else " and said nothing"
        self._fail(ChildFailedError(f"{kept.child.name} does not stay up ({how}){said}"))

    def _fail(self, error: ChildFailedError) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(error)

    async def _pause_or_stop(self, wait_s: float) -> None:
        pausing = asyncio.ensure_future(self._pause(wait_s))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({pausing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for each in (pausing, stopping):
            each.cancel()
        await asyncio.gather(pausing, stopping, return_exceptions=True)
