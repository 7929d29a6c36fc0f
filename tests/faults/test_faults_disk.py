# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The server's disk is full: answers go on, and all is well once there is room and it restarts."""

import contextlib
import errno
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import Record
from tests.faults.engine import MODEL
from tests.faults.faults import defects, leaks
from tests.faults.load import Load, clients
from tests.faults.report import row
from tests.faults.site import Site, running_site

SIZE = "64m"
PIECE = bytes(64 * 1024)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a small file system; skip the test where we may not."""
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place))
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"a file system of its own needs root with CAP_SYS_ADMIN: {said.strip()}")
    try:
        yield place
    finally:
        subprocess.run(("umount", "--lazy", str(place)), check=True)


def fill(place: Path) -> Path:
    """Leave no room in `place`; return the file to delete."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(PIECE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return filler


async def test_answers_go_on_while_the_disk_is_full(tmp_path: Path, record: Record) -> None:
    with small_disk(tmp_path / "store") as store:
        async with running_site(tmp_path / "site", store) as site:
            await with_a_full_disk(site, store, record)


async def with_a_full_disk(site: Site, store: Path, record: Record) -> None:
    server = site.processes["nats"]
    async with clients(site.gateways, MODEL) as client, Load(client) as load:
        await load.answered(12)
        filler = fill(store)
        while "no space left" not in (await site.http.get(f"{site.monitor_url}/healthz")).text:
            await load.answered(1)
        await load.answered(24)
        filler.unlink()
        # What could not be written stays closed until the server starts again.
        server.signal(signal.SIGTERM)
        await server.ended()
        server.start()
        await server.until_ready()
        back_s = await site.until_serving()
        await site.until_ready()
        await load.answered(12)
    leaked = await leaks(site)
    logged = [line for each in site.processes.values() for line in defects(each)]
    record(**row("nats full disk", load, leaked, back_s))
    assert leaked == []
    assert logged == []
    assert load.details("hung") == {}
    assert load.details("wrong") == {}
    assert load.details("error") == {}
    assert back_s <= 5.0
