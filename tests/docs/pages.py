# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Runs the code blocks of a page, in order, as a reader would.

`sh` blocks are run by bash, `python` blocks by this Python; a command that serves (`helexa up`,
`cortex`, `neuron`, `gateway`) runs until the page ends or starts another site. The known ports
become free ones. Installing is not repeated: the commands are compared with what CI runs.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.ports import free_port

from helexa.process.settings import current_environment

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PORTS = (8080, 8040, 8091, 9050, 8060, 4222, 8081)
PLACES = {"/var/lib/helexa": "{home}/var", "site.example.org": "127.0.0.1"}
"""Names that a page uses for the reader's own, and what they are here."""
SERVES = re.compile(
    r"^(?:.*&& )?helexa (up|cortex|neuron|gateway)(?! token| inspect)\b", re.MULTILINE
)
SHOWN = re.compile(r"(?:^    |`)(helexa [^`\n]+)", re.MULTILINE)
"""A command that a page names without running it."""
INSTALLS = re.compile(r"python3 -m pip install -e '\.\[[a-z,]+\]'")
READY = {
    "up": b"helexa ready",
    "cortex": b'"event":"role_serves"',
    "neuron": b'"event":"joined"',
    "gateway": b'"event":"serving"',
}
"""What each kind of server prints when it can be used."""
SITES = ("up", "cortex")
ALONE = ("README.md", "set-api-keys.md")
"""Pages that want a fresh site, or prepare it before they start it."""
BLOCK_WITHIN_S = 90.0
STOP_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Block:
    """One code block."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of `page`."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text[: found.start()].count("\n") + 1)
        for found in BLOCK.finditer(text)
    ]


def can_share(page: Path) -> bool:
    """Whether `page` needs nothing but the usual site: others may use it before and after."""
    serving = [b.text for b in blocks_of(page) if b.language == "sh" and SERVES.search(b.text)]
    return [command_of(text) for text in serving] == ["helexa up"] and page.name not in ALONE


def command_of(script: str) -> str:
    """Return the last command of a block, the one that serves."""
    return script.rpartition("&&")[2].strip()


def shown_commands(page: Path) -> list[str]:
    """Return the `helexa` commands that `page` only shows."""
    return SHOWN.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))


@dataclass(slots=True)
class Server:
    """Something that a page starts and leaves running."""

    command: str
    process: asyncio.subprocess.Process
    printed: str = ""
    rest: asyncio.Task[None] | None = None

    async def until(self, mark: bytes) -> None:
        """Return when it has printed the line with `mark`."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.printed += line.decode(errors="replace")
            if mark in line:
                # A pipe that nobody empties would block the server.
                self.rest = asyncio.create_task(_drop(self.process.stdout))
                return
        raise AssertionError(f"it ended too early\n{self.printed}")

    async def stop(self) -> None:
        """Press Ctrl-C, and after a while make sure of it."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), STOP_WITHIN_S)
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
        if self.rest is not None:
            self.rest.cancel()


async def _drop(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


@dataclass(slots=True)
class Reader:
    """Somebody who follows a page, in a home folder of their own."""

    home: Path
    hub: str
    servers: list[Server] = field(default_factory=list)
    ports: dict[int, int] = field(default_factory=lambda: {each: free_port() for each in PORTS})

    @property
    def environment(self) -> dict[str, str]:
        inherited = current_environment()
        kept = {name: inherited[name] for name in ("LANG", "LD_LIBRARY_PATH") if name in inherited}
        return kept | {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HF_ENDPOINT": self.hub,
            "PYTHONUNBUFFERED": "1",
        }

    def localised(self, text: str) -> str:
        """Return `text` with this reader's ports and folders."""
        for known, free in self.ports.items():
            text = re.sub(rf"(?<=:){known}\b", str(free), text)
        for place, ours in PLACES.items():
            text = text.replace(place, ours.format(home=self.home))
        gateway, orchestrator, portal = (self.ports[each] for each in PORTS[:3])
        return re.sub(
            r"\bhelexa up\b",
            f"helexa up --gateway-socket 127.0.0.1:{gateway} "
            f"--orchestrator-socket 127.0.0.1:{orchestrator} --portal-socket 127.0.0.1:{portal}",
            text,
        )

    async def follow(self, block: Block) -> str:
        """Do what one block says, and return what it printed."""
        if block.language == "python":
            return await self._finish([sys.executable, "-c", self.localised(block.text)])
        text = INSTALLS.sub("true", block.text)
        if re.search(r"\bpytest\b", text):
            return ""
        if serving := SERVES.search(text):
            return await self._serve(self.localised(text), serving[1])
        return await self._finish(["bash", "-euo", "pipefail", "-c", self.localised(text)])

    async def leave(self) -> None:
        """Stop what still serves."""
        for server in reversed(self.servers):
            await server.stop()
        self.servers.clear()

    async def _serve(self, script: str, kind: str) -> str:
        command = command_of(script)
        for server in self.servers:
            if server.command == command and server.process.returncode is None:
                return server.printed
        if kind in SITES:
            await self.leave()
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f"exec {command}"),
            cwd=self.home,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        server = Server(command, process)
        self.servers.append(server)
        async with asyncio.timeout(BLOCK_WITHIN_S):
            await server.until(READY[kind])
        return server.printed

    async def _finish(self, command: list[str]) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.home,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), BLOCK_WITHIN_S)
        text = printed.decode(errors="replace")
        assert process.returncode == 0, f"{command[-1]}\n--- printed\n{text}"
        return text


@contextlib.asynccontextmanager
async def reading(home: Path, hub: str) -> AsyncIterator[Reader]:
    """Follow a page inside the block."""
    reader = Reader(home, hub)
    try:
        yield reader
    finally:
        await reader.leave()
