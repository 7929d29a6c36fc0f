# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Several gateways behind one port, as processes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from tests.conftest import Broker

from helexa.process.http import bind
from helexa.process.settings import SocketAddress, current_environment
from helexa.protocol.naming import home_of

LIMIT_S = 60
Line = dict[str, object]


class Workers:
    """`helexa gateway --workers 2`, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.instances: set[str] = set()

    async def line(self, event: str) -> Line:
        """Return the next line of this event."""
        assert self.process.stderr is not None
        while True:
            raw = await asyncio.wait_for(self.process.stderr.readline(), LIMIT_S)
            assert raw, "it has ended"
            line: Line = json.loads(raw)
            if line["event"] == event:
                return line

    async def homes(self, count: int) -> set[str]:
        """Ask over new connections until `count` gateways have answered, and return who."""
        found: set[str] = set()
        async with asyncio.timeout(LIMIT_S):
            while len(found) < count:
                async with httpx.AsyncClient(base_url=self.url) as http:
                    answer = await http.get("/v1/models")
                assert answer.status_code == 200
                found.add(home_of(answer.headers["x-request-id"]) or "")
        return found

    def pids(self) -> list[int]:
        """Return the processes of the workers."""
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in file.read_text().split()]


@asynccontextmanager
async def workers(broker: Broker, data_dir: Path) -> AsyncIterator[Workers]:
    words = ("--workers", "2", "--socket", "127.0.0.1:0", "--nats-url", broker.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helexa.cli", "gateway", *words, "--data-dir", str(data_dir)),
        "--grace-s",
        "1",
        env=current_environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    made = Workers(process)
    try:
        for _ in range(2):
            line = await made.line("serving")
            made.url = f"http://{line['address']}"
            made.instances.add(str(line["instance"]))
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_workers_share_a_port_and_replace_one_another(broker: Broker, tmp_path: Path) -> None:
    async with workers(broker, tmp_path / "data") as running:
        assert len(running.instances) == 2
        before = await running.homes(2)

        os.kill(running.pids()[0], signal.SIGKILL)
        line = await running.line("child_ended")
        assert line["code"] == -signal.SIGKILL
        await running.line("serving")
        after = await running.homes(2)

        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), LIMIT_S) == 0

    assert len(before & after) == 1


async def refused(*words: str) -> str:
    """Return what the command says of its arguments."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helexa.cli", "gateway", *words), stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == 2
    return said.decode()


async def test_a_port_that_is_taken_is_not_shared() -> None:
    with bind(SocketAddress(host="127.0.0.1", port=0), share=True) as taken:
        socket = f"127.0.0.1:{taken.getsockname()[1]}"

        said = await refused("--workers", "2", "--socket", socket)

    assert f"--socket: cannot listen on {socket}" in said


async def test_a_number_of_workers_is_a_number() -> None:
    assert "--workers" in await refused("--workers", "none")
    assert "--workers" in await refused("--workers", "0")
