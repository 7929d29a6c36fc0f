# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One process of a runtime: started, listened to, and ended with everything that it started."""

import asyncio
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_log = logging.getLogger(__name__)

_GUARD = Path(__file__).with_name("guard.py")
_KEPT_LINES = 50
_MAX_LINE_CHARACTERS = 2000
_KILL_S = 5.0
_LAST_WORDS_S = 1.0


class Child:
    """A process that never outlives this one.

    Between the two stands a guard (see `guard`): it ends the process and all its descendants when
    asked to, or when this process is gone.

    Args:
        command: an absolute program and its arguments.
        env: set beside what this process has.
        name: of the model, for the log.
        on_exit: called once, when everything has ended, by whatever cause.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        name: str,
        on_exit: Callable[[], None],
    ) -> None:
        self.exited = asyncio.Event()
        self.exit_code: int | None = None
        """Of the process once it has ended; 128 + n for a signal n."""
        self._command = list(command)
        self._env = dict(env)
        self._name = name
        self._on_exit = on_exit
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def start(self) -> None:
        """Start the process, unless it has been stopped already.

        Raises:
            OSError: no process can be made.
        """
        if self._was_stopped():
            self.exited.set()
            return
        spawning = asyncio.create_task(self._spawn())
        try:
            await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # Half made, it could be neither ended nor reaped.
            await spawning
            raise

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(_GUARD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A Ctrl-C in a terminal is for the neuron, which ends its runtimes in order.
            start_new_session=True,
        )
        order = json.dumps({"command": self._command, "env": self._env})
        self._lifeline().write(order.encode() + b"\n")
        self._watching = asyncio.create_task(self._watch(), name=f"runtime of {self._name}")
        if self._was_stopped():
            # Asked for while the process was being made.
            self._lifeline().close()

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, then kill it and its descendants after `grace_s`; safe to call twice."""
        self._is_stopped = True
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        if not await self._ends_within(grace_s):
            self._lifeline().close()
            if not await self._ends_within(_KILL_S):
                with suppress(ProcessLookupError):
                    self._process.kill()
        await self.exited.wait()

    def lines(self) -> tuple[str, ...]:
        """The last lines that it wrote, 50 at most."""
        return tuple(self._lines)

    def memory_bytes(self) -> int | None:
        """Resident memory of the process and its descendants, `None` where there is none."""
        if self._process is None or self.exited.is_set():
            return None
        total = 0
        try:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
        except psutil.Error:
            return None
        return total or None

    def _was_stopped(self) -> bool:
        return self._is_stopped

    def _lifeline(self) -> asyncio.StreamWriter:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the process has not been started")
        return self._process.stdin

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            return False
        return True

    async def _watch(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        listening = asyncio.create_task(self._listen(process.stdout))
        self.exit_code = await process.wait()
        # A process that slipped away may hold the other end open for ever.
        await asyncio.wait({listening}, timeout=_LAST_WORDS_S)
        listening.cancel()
        self._lifeline().close()
        self.exited.set()
        self._on_exit()

    async def _listen(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while data := await output.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._keep(line)
            rest = rest[-_MAX_LINE_CHARACTERS:]
        self._keep(rest)

    def _keep(self, line: bytes) -> None:
        text = line[:_MAX_LINE_CHARACTERS].decode("utf-8", "replace").rstrip()
        if text:
            self._lines.append(text)
            _log.debug("runtime_said", extra={"model": self._name, "line": text})
