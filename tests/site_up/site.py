# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A whole site as processes: `helexa up` on free ports with a data directory of its own."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tests.ports import free_port

from helexa.process.settings import current_environment

READY = b"helexa ready"
UP_WITHIN_S = 90.0
DOWN_WITHIN_S = 10.0
MODEL = "helexa-tiny"


@dataclass(slots=True)
class RunningSite:
    """A started site and what it wrote about itself."""

    process: asyncio.subprocess.Process
    data: Path
    output: list[str] = field(default_factory=list)

    @property
    def file(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.data / "site.json").read_text())
        return found

    @property
    def gateways(self) -> list[str]:
        return list(json.loads((self.data / "site.json").read_text())["gateway_urls"])

    @property
    def base_url(self) -> str:
        return f"{self.gateways[0]}/v1"

    def orchestrator(self) -> httpx.AsyncClient:
        key = (self.data / "secrets" / "orchestrator.key").read_text().strip()
        return httpx.AsyncClient(
            base_url=self.file["orchestrator_url"], headers={"Authorization": f"Bearer {key}"}
        )

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the site's processes whose command line has all of `words`."""
        running = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in running if set(words) <= set(command_of(each))]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the site to stop and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), DOWN_WITHIN_S)

    def logs(self) -> str:
        """Return the end of every log, for the report of a failure."""
        parts = [*self.output[-20:]]
        for log in sorted((self.data / "logs").glob("*.log")):
            parts += [f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-8:]]
        return "\n".join(parts)


def command_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [Path(word).name for word in process.cmdline()]
    return []


@contextlib.asynccontextmanager
async def site_up(
    data: Path, *flags: str, variables: Mapping[str, str] | None = None
) -> AsyncIterator[RunningSite]:
    """Run a site inside the block, with more environment `variables` than ours."""
    sockets = [
        word
        for role in ("gateway", "orchestrator", "portal")
        for word in (f"--{role}-socket", f"127.0.0.1:{free_port()}")
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helexa.cli", "up", "--data-dir", str(data), *sockets, *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=current_environment() | dict(variables or {}),
    )
    site = RunningSite(process, data)
    try:
        await asyncio.wait_for(_until_ready(site), UP_WITHIN_S)
        yield site
    finally:
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await site.stop()
        if process.returncode is None:
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
            process.kill()
            await process.wait()


async def _until_ready(site: RunningSite) -> None:
    assert site.process.stdout is not None
    async for line in site.process.stdout:
        site.output.append(line.decode().rstrip())
        if line.startswith(READY):
            return
    raise AssertionError(f"helexa up ended before it was ready\n{site.logs()}")
