# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Under which conditions was measured, as text."""

import datetime as dt
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
from tests.benchmarks.accounting import MIB
from tests.benchmarks.targets import Target

from helexa.site.binary import find_server

LIBRARIES = ("nats-py", "uvicorn", "uvloop", "httptools")


def conditions(targets: Iterable[Target], repetitions: int, duration_s: float) -> dict[str, str]:
    """Return what a reader needs to know of the machine, the programs and the command."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    server = ".".join(map(str, find_server().version))
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "processor": f"{_processor()}, {psutil.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / MIB / 1024:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load average before": load,
        "Python": platform.python_version(),
        "gcc": _first_line("gcc", "--version"),
        "nats-server": server,
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        **{target.name: target.version for target in targets if target.version},
        "commit": _first_line("git", "describe", "--always", "--dirty"),
        "repetitions": f"{repetitions}, of {duration_s:g} s each",
        "command": f"`python -m tests.benchmarks.side_by_side {shlex.join(sys.argv[1:])}`",
    }


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def _first_line(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return (done.stdout.splitlines() or ["unknown"])[0]
