# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What `helexa doctor` finds out about this machine, without a site."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helexa.cli.ports import is_free
from helexa.neuron.backends.llama_cpp import check_processor
from helexa.neuron.gpu import GpuReader
from helexa.process.settings import SocketAddress
from helexa.protocol.errors import HelexaError
from helexa.site.binary import find_server
from helexa.site.errors import SiteError

GIB = 1 << 30
LITTLE_DISK_BYTES = 5 * GIB
_LOAD_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    is_fine: bool
    text: str
    """What was found; where it is not fine, also what to do."""


def nats_server(explicit: Path | None = None) -> Finding:
    """Look for a nats-server that is new enough, or whether `explicit` is one."""
    try:
        found = find_server(explicit)
    except SiteError as error:
        return Finding("nats-server", is_fine=False, text=str(error))
    version = ".".join(map(str, found.version))
    return Finding("nats-server", is_fine=True, text=f"{version} ({found.path})")


def llama_cpp() -> Finding:
    """Load llama.cpp in a process of its own: on some processors loading it is fatal."""
    name = "llama.cpp"
    cpu = Path("/proc/cpuinfo")
    try:
        check_processor(platform.machine(), cpu.read_text() if cpu.exists() else "")
    except HelexaError as error:
        return Finding(name, is_fine=False, text=error.message)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", "import xllamacpp"],
            capture_output=True,
            text=True,
            timeout=_LOAD_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, is_fine=False, text=f"it cannot be loaded: {error}")
    if done.returncode == 0:
        return Finding(name, is_fine=True, text="the embedded one can be loaded")
    said = (done.stderr.strip().splitlines() or ["the process was killed"])[-1]
    return Finding(name, is_fine=False, text=f"{said}; {remedy(said)}")


def remedy(said: str) -> str:
    """Return what to do about the last words of a process that could not load llama.cpp."""
    if "libgomp" in said:
        return "install the system package libgomp1"
    if "No module" in said:
        return "run: pip install 'helexa[embedded]', or use models with a command of their own"
    return "run: pip install --force-reinstall 'helexa[embedded]'"


def gpus() -> list[Finding]:
    """Look for graphics cards; a host without any is a normal host."""
    reader = GpuReader()
    if not reader.connect():
        return [Finding("GPU", is_fine=True, text="none; models run on the processor")]
    try:
        cards = reader.read()
    finally:
        reader.close()
    return [
        Finding(f"GPU {card.index}", is_fine=False, text=f"{card.error}; restart the driver")
        if card.error
        else Finding(
            f"GPU {card.index}", is_fine=True, text=_card(card.name, card.memory_total_bytes)
        )
        for card in cards
    ] or [Finding("GPU", is_fine=True, text="none; models run on the processor")]


def _card(name: str | None, memory_bytes: int | None) -> str:
    memory = f"{memory_bytes / GIB:.0f} GiB" if memory_bytes is not None else "memory not known"
    return f"{name or 'unknown'}, {memory}"


def ports(addresses: Iterable[tuple[str, SocketAddress]], *, own_site: bool) -> list[Finding]:
    """Look whether the addresses of a site are free, or taken by the site that runs here."""
    found = []
    for name, address in addresses:
        free = is_free(address)
        if free or own_site:
            text = f"{address} is {'free' if free else 'used by the site that runs here'}"
            found.append(Finding(f"{name} port", is_fine=True, text=text))
        else:
            text = f"{address} is taken; stop what uses it or give --{name}-socket another address"
            found.append(Finding(f"{name} port", is_fine=False, text=text))
    return found


def data_directory(path: Path) -> Finding:
    """Look whether the data directory can be written and has room."""
    name = "data directory"
    place = next(each for each in (path, *path.parents) if each.exists())
    if not os.access(place, os.W_OK):
        return Finding(name, is_fine=False, text=f"{place} cannot be written; use --data-dir")
    usage = os.statvfs(place)
    free = usage.f_bavail * usage.f_frsize
    if free < LITTLE_DISK_BYTES:
        text = f"{path} has only {free / GIB:.1f} GiB left; models need more, use --data-dir"
        return Finding(name, is_fine=False, text=text)
    return Finding(name, is_fine=True, text=f"{path}, {free / GIB:.0f} GiB free")
