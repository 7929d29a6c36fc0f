# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The two programs in C between which everything is measured: the backend and the load."""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.benchmarks.phases import TOKENS, Phase

from helexa.process.parent import die_with_parent

SOURCES = Path(__file__).parent
COMPILE_WITHIN_S = 120
UP_WITHIN_S = 10.0
LOOK_S = 0.02
BEYOND_S = 30.0
"""What the load may take beyond the time that it was given."""
CHAT_PATH = "/v1/chat/completions"


def compiled(name: str, cache: Path) -> Path:
    """Return the program `name`, compiled into `cache` unless that has it already.

    Raises:
        FileNotFoundError: there is no gcc.
        CalledProcessError: it does not compile.
    """
    source = SOURCES / f"{name}.c"
    program = cache / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Two runs may compile at once: each writes a file of its own, and either will do.
        own = cache / f"{program.name}.{os.getpid()}"
        subprocess.run(
            ("gcc", "-O2", "-o", str(own), str(source)), check=True, timeout=COMPILE_WITHIN_S
        )
        own.replace(program)
    return program


@dataclass(frozen=True, slots=True)
class MockBackend:
    """The backend that runs."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until_idle(self) -> None:
        """Return when it streams nothing: the last load's answers have been cancelled."""
        async with httpx.AsyncClient() as http:
            while (await http.get(f"{self.url}/counters")).json()["streams"]:
                await asyncio.sleep(LOOK_S)


@contextlib.asynccontextmanager
async def mock_backend(program: Path, port: int) -> AsyncIterator[MockBackend]:
    """Run the mock backend inside the block."""
    process = await asyncio.create_subprocess_exec(
        program, str(port), preexec_fn=die_with_parent(os.getpid())
    )
    try:
        backend = MockBackend(port, process.pid)
        async with asyncio.timeout(UP_WITHIN_S), httpx.AsyncClient() as http:
            while process.returncode is None:
                with contextlib.suppress(httpx.TransportError):
                    await http.get(f"{backend.url}/counters")
                    break
                await asyncio.sleep(LOOK_S)
        yield backend
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Address:
    """Where chats are asked for."""

    ports: tuple[int, ...]
    model: str = "mock"
    key: str = "none"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a phase takes."""

    warm_up_s: float
    duration_s: float


async def generate(
    program: Path, to: Address, phase: Phase, timing: Timing, border: Callable[[], None]
) -> dict[str, float]:
    """Return what the load generator has counted; `border` is called at both ends of what counts.

    Raises:
        RuntimeError: the generator failed.
        TimeoutError: it did not end.
    """
    words = (
        ",".join(map(str, to.ports)),
        CHAT_PATH,
        phase.concurrency,
        timing.warm_up_s,
        phase.ramp_s,
        timing.duration_s,
        "stream" if phase.is_streamed else "whole",
        TOKENS,
        phase.pace_ms,
        to.model,
        to.key,
    )
    process = await asyncio.create_subprocess_exec(
        program,
        *map(str, words),
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(os.getpid()),
    )
    assert process.stdout is not None
    within_s = phase.ramp_s + timing.warm_up_s + timing.duration_s + BEYOND_S
    told = b""
    try:
        async with asyncio.timeout(within_s):
            for said in (b"begun\n", b"ended\n"):
                if await process.stdout.readline() != said:
                    raise RuntimeError(f"the load generator ended early, at {to.ports}")
                border()
            told = await process.stdout.read()
    finally:
        if process.returncode is None and not told:
            process.kill()
        await process.wait()
    return dict(json.loads(told))
