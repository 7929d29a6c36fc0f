# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the processes of a target use."""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

MIB = 1024 * 1024
Naming = Callable[[psutil.Process], str]


def own_name(process: psutil.Process) -> str:
    """Return a process's name: of one of Helexa's its service, else its program's."""
    words = [Path(word).name for word in process.cmdline()]
    for word, following in itertools.pairwise(words):
        if word == "helexa.cli":
            return following
    return process.name()


def tree(pid: int, naming: Naming = own_name) -> dict[psutil.Process, str]:
    """Return a process and all that it has started, each with its name."""
    found: dict[psutil.Process, str] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for each in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found[each] = naming(each)
    return found


def cpu_s(processes: Mapping[psutil.Process, str]) -> dict[str, float]:
    """Return the seconds of processor time that the processes of each name have had."""
    used: defaultdict[str, float] = defaultdict(float)
    for process, name in processes.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used[name] += times.user + times.system
    return dict(used)


def since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return what was used between two readings; a process that has ended counts for nothing."""
    return {name: max(0.0, used - before.get(name, 0.0)) for name, used in now.items()}


def memory_mib(processes: Mapping[psutil.Process, str]) -> dict[str, list[float]]:
    """Return the resident memory of every process, by name, the largest first."""
    used: defaultdict[str, list[float]] = defaultdict(list)
    for process, name in processes.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            used[name].append(process.memory_info().rss / MIB)
    return {name: sorted(sizes, reverse=True) for name, sizes in used.items()}
