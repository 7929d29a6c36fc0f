# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What this host has and what is free of it now, within the limits set on this process."""

import logging
import os
import platform
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helexa.neuron.gpu import Gpu, GpuReader

logger = logging.getLogger(__name__)

# cgroup v1 writes "no limit" as the largest page-aligned 64-bit number.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Hardware:
    """One sample of a host, as this process may use it."""

    cpu_model: str
    physical_cores: int
    """Whole cores for this process: by its affinity and the quota of its control group."""
    logical_cores: int
    """The same, counting every hardware thread."""
    cpu_percent: float
    """Busy share of the whole host since the previous sample, 0 to 100."""
    load_average: tuple[float, float, float]
    """Runnable processes of the whole host over 1, 5 and 15 minutes."""
    memory_total_bytes: int
    """The host's memory or, where lower, the limit of the control group."""
    memory_available_bytes: int
    """What can be taken without swapping, counting what the kernel would reclaim."""
    disk_free_bytes: int | None
    """Free for us where the models lie; None while that cannot be read."""
    has_avx2: bool
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the control groups of this process allow; None is no limit."""

    cpu_cores: float | None
    memory_bytes: int | None
    memory_free_bytes: int | None


@dataclass(slots=True)
class _CpuClock:
    """Busy share since the last call, whichever thread calls.

    psutil.cpu_percent keeps its last reading per thread, so from a thread pool it would answer 0.
    """

    _busy_s: float = field(default=0.0)
    _total_s: float = field(default=0.0)
    _percent: float = field(default=0.0)

    def percent(self) -> float:
        times = psutil.cpu_times()
        # The kernel counts a guest's time in user and nice already.
        total_s = sum(times) - times.guest - times.guest_nice
        busy_s = total_s - times.idle - times.iowait
        passed_s = total_s - self._total_s
        if passed_s > 0:
            share = (busy_s - self._busy_s) / passed_s
            self._percent = round(100 * min(1.0, max(0.0, share)), 1)
            self._busy_s, self._total_s = busy_s, total_s
        return self._percent


class HardwareMonitor:
    """Samples this host.

    Args:
        models_dir: where the models lie; its nearest existing parent is measured until it exists.
        gpu_retry_interval_s: pause between attempts to reach NVML where it failed or a card did.
        root: where /proc and /sys lie.
    """

    def __init__(
        self, models_dir: Path, *, gpu_retry_interval_s: float = 30.0, root: Path = Path("/")
    ) -> None:
        self._models_dir = models_dir.absolute()
        self._gpu_retry_interval_s = gpu_retry_interval_s
        self._root = root
        self._cpu_model, self._has_avx2 = _cpu_identity(root)
        self._cores: tuple[frozenset[int], int] = (frozenset(), 0)
        self._clock = _CpuClock()
        self._clock.percent()
        self._gpus = GpuReader()
        self._next_connect_s = 0.0

    def sample(self) -> Hardware:
        """This host now.

        Blocking: about 1 ms without cards (measured on 2 cores), but NVML can block for ever on
        a sick driver, and so can a disk over a dead network. Call it in a thread, one call at a
        time.
        """
        limits = read_limits(self._root)
        physical, logical = self._usable_cores(limits)
        memory = psutil.virtual_memory()
        return Hardware(
            cpu_model=self._cpu_model,
            physical_cores=physical,
            logical_cores=logical,
            cpu_percent=self._clock.percent(),
            load_average=os.getloadavg(),
            memory_total_bytes=_lower(memory.total, limits.memory_bytes),
            memory_available_bytes=_lower(memory.available, limits.memory_free_bytes),
            disk_free_bytes=_disk_free(self._models_dir),
            has_avx2=self._has_avx2,
            gpus=self._read_gpus(),
        )

    def close(self) -> None:
        """Releases NVML."""
        self._gpus.close()

    def _read_gpus(self) -> tuple[Gpu, ...]:
        now_s = time.monotonic()
        if now_s >= self._next_connect_s:
            self._gpus.connect()
            self._next_connect_s = now_s + self._gpu_retry_interval_s
        return self._gpus.read()

    def _usable_cores(self, limits: Limits) -> tuple[int, int]:
        allowed = frozenset(os.sched_getaffinity(0))
        if allowed != self._cores[0]:
            self._cores = (allowed, _count_physical(self._root, allowed))
        physical, logical = self._cores[1], len(allowed)
        if limits.cpu_cores is not None:
            # Rounded down: a thread more than the quota stalls all threads of a backend.
            quota = max(1, int(limits.cpu_cores))
            physical, logical = min(physical, quota), min(logical, quota)
        return physical, logical


def read_limits(root: Path = Path("/")) -> Limits:
    """The tightest limits among the control groups, v1 or v2, that this process lies in.

    Args:
        root: where /proc and /sys lie.
    """
    cores: list[float] = []
    memory: list[int] = []
    free: list[int] = []
    for group in _groups(root, "cpu"):
        quota = _cpu_quota(group)
        if quota is not None:
            cores.append(quota)
    for group in _groups(root, "memory"):
        limit, used = _memory_use(group)
        if limit is not None:
            memory.append(limit)
            free.append(max(0, limit - used))
    return Limits(
        cpu_cores=min(cores, default=None),
        memory_bytes=min(memory, default=None),
        memory_free_bytes=min(free, default=None),
    )


def _groups(root: Path, controller: str) -> list[Path]:
    """The directories of this process's group and its parents, for v2 and for v1's controller."""
    paths = dict(_memberships(root))
    found: list[Path] = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not kind or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        key = controller if kind[0] == "cgroup" else ""
        if key not in paths or (key and key not in kind[-1].split(",")):
            continue
        mount = root / fields[4].lstrip("/")
        # In a container without its own group namespace the mount shows only our subtree.
        inside = paths[key].removeprefix(fields[3].rstrip("/")).strip("/")
        steps = [mount, *(mount / part for part in _prefixes(inside))]
        found += [step for step in steps if step.is_dir()]
    return found


def _memberships(root: Path) -> list[tuple[str, str]]:
    """(controller, path) of each group of this process; the controller of v2 is ""."""
    pairs: list[tuple[str, str]] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        pairs += [(controller, path) for controller in controllers.split(",")]
    return pairs


def _prefixes(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _cpu_quota(group: Path) -> float | None:
    words = _text(group / "cpu.max").split() or [
        _text(group / "cpu.cfs_quota_us").strip(),
        _text(group / "cpu.cfs_period_us").strip(),
    ]
    quota, period = _number(words[0]), _number(words[1])
    return quota / period if quota is not None and period else None


def _memory_use(group: Path) -> tuple[int | None, int]:
    """(limit, bytes in use that cannot be reclaimed) of one group."""
    limits = [
        value
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
        if (value := _number(_text(group / name))) is not None and value < _NO_LIMIT_BYTES
    ]
    if not limits:
        return None, 0
    used = _number(_text(group / "memory.current") or _text(group / "memory.usage_in_bytes")) or 0
    return min(limits), max(0, used - _reclaimable(group))


def _reclaimable(group: Path) -> int:
    """Bytes of file cache that the kernel drops first; v1 counts the subtree as total_*."""
    found = dict(
        line.split(" ", 1)
        for line in _text(group / "memory.stat").splitlines()
        if line.partition(" ")[0] in {"inactive_file", "total_inactive_file"}
    )
    return _number(found.get("total_inactive_file", found.get("inactive_file", ""))) or 0


def _number(text: str) -> int | None:
    digits = text.strip()
    return int(digits) if digits.isdecimal() else None


def _text(path: Path) -> str:
    """The file's text, or "" where it is absent, as kernels and containers differ."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _lower(value: int, limit: int | None) -> int:
    return value if limit is None else min(value, limit)


def _cpu_identity(root: Path) -> tuple[str, bool]:
    """(model, whether it has AVX2) of the first processor; Arm names no model there."""
    text = _text(root / "proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    name = model[1].strip() if model else platform.machine()
    return name, flags is not None and "avx2" in flags[1].split()


def _count_physical(root: Path, allowed: frozenset[int]) -> int:
    """Cores behind these hardware threads; where siblings are unknown, each counts as one."""
    cpus = root / "sys/devices/system/cpu"
    cores = {_text(cpus / f"cpu{cpu}/topology/thread_siblings_list") or cpu for cpu in allowed}
    return len(cores)


def _disk_free(path: Path) -> int | None:
    for place in (path, *path.parents):
        try:
            return psutil.disk_usage(str(place)).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            logger.debug("disk_unreadable", extra={"path": str(place), "why": str(error)})
            return None
    return None
