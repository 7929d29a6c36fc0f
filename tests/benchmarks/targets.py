# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is measured: something that answers chats, and the processes that it consists of."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from tests.benchmarks.accounting import Naming, own_name, tree
from tests.benchmarks.phases import TOKENS
from tests.benchmarks.programs import CHAT_PATH, Address

from helexa.process.parent import die_with_parent
from helexa.process.settings import current_environment

UP_WITHIN_S = 300.0
DOWN_WITHIN_S = 15.0
LOOK_S = 0.1
TEXT = "".join(f" tok{number:03}" for number in range(TOKENS))


class LeftOutError(Exception):
    """A target cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that runs and answers chats."""

    name: str
    address: Address
    version: str = ""
    pid: int | None = None
    """Of the process that everything which counts belongs to; `None`: nothing counts."""
    naming: Naming = own_name
    look: Callable[[], Awaitable[dict[str, str]]] | None = None
    """Tells, after the load, what the target has kept of it."""

    def processes(self) -> dict[psutil.Process, str]:
        """Return its processes with their names."""
        return {} if self.pid is None else tree(self.pid, self.naming)


async def until_right(address: Address, ended: asyncio.Task[int] | None = None) -> None:
    """Return when whole and streamed chats are answered as the backend answers them.

    Args:
        address: Where to ask; each port.
        ended: Ends when the target's process does.

    Raises:
        LeftOutError: the target ends, or they are not within `UP_WITHIN_S`.
    """
    problem = "nothing was answered"
    try:
        async with asyncio.timeout(UP_WITHIN_S), httpx.AsyncClient(timeout=30) as http:
            for port in address.ports:
                while problem := await _wrong(http, port, address):
                    if ended is not None and ended.done():
                        raise LeftOutError(f"it ended with exit code {ended.result()}")
                    await asyncio.sleep(LOOK_S)
    except TimeoutError as error:
        raise LeftOutError(f"no right answer within {UP_WITHIN_S:.0f} s: {problem}") from error


async def _wrong(http: httpx.AsyncClient, port: int, address: Address) -> str:
    """Return what is wrong with the target's answers, if anything is."""
    url, key = f"http://127.0.0.1:{port}{CHAT_PATH}", {"Authorization": f"Bearer {address.key}"}
    chat: dict[str, object] = {
        "model": address.model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": TOKENS,
    }
    try:
        whole = await http.post(url, json=chat, headers=key)
        streamed = await http.post(url, json=chat | {"stream": True}, headers=key)
    except httpx.HTTPError as error:
        return repr(error)
    if whole.status_code != 200 or streamed.status_code != 200:
        return f"{whole.status_code} {whole.text[:200]}"
    if TEXT not in whole.text or streamed.text.count(" tok") != TOKENS:
        return "the text is not the backend's"
    return ""


@contextlib.asynccontextmanager
async def program(
    argv: Sequence[str | Path],
    log: Path,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> AsyncIterator[tuple[int, asyncio.Task[int]]]:
    """Run a program inside the block; yield its process id and a task that ends when it does.

    Args:
        argv: What to run.
        log: Where its output goes.
        variables: More environment.
        folder: Where it runs.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder or log.parent,
            env=current_environment() | dict(variables or {}),
            preexec_fn=die_with_parent(os.getpid()),
        )
    ended = asyncio.create_task(process.wait())
    try:
        yield process.pid, ended
    finally:
        await stop(process, ended)


async def stop(process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
    """End a program and what it has started: first in good order, then not."""
    started = list(tree(process.pid))
    if process.returncode is None:
        process.terminate()
        await asyncio.wait({ended}, timeout=DOWN_WITHIN_S)
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.is_running():
                each.kill()
    await ended
