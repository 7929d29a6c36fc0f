# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The newest view of the host's hardware, read in a thread that nobody ever waits for."""

import asyncio
import threading
from collections.abc import Callable

from helexa.neuron.gpu import Gpu
from helexa.neuron.hardware import Hardware, HardwareMonitor
from helexa.protocol.messages.neurons import GpuSummary, HardwareSummary

INTERVAL_S = 1.0


class HardwareFeed:
    """Samples the host once a second.

    A driver that hangs holds up its thread alone: reports go on with the last sample, and as a
    daemon the thread does not keep the process from ending.
    """

    def __init__(self, monitor: HardwareMonitor, interval_s: float = INTERVAL_S) -> None:
        """Read from `monitor`; `start` does it."""
        self.latest = HardwareSummary()
        self._monitor = monitor
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._sampled = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin to sample."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="hardware", daemon=True).start()

    def stop(self) -> None:
        """Sample no more."""
        self._ended.set()

    def on_sample(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each sample."""
        self._listeners.append(listener)

    async def wait_sampled(self) -> None:
        """Return when there is a sample."""
        await self._sampled.wait()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._ended.is_set():
            summary = summarize(self._monitor.sample())
            if loop.is_closed():
                break
            loop.call_soon_threadsafe(self._set, summary)
            self._ended.wait(self._interval_s)
        self._monitor.close()

    def _set(self, summary: HardwareSummary) -> None:
        self.latest = summary
        self._sampled.set()
        for listener in self._listeners:
            listener()


def summarize(hardware: Hardware) -> HardwareSummary:
    """Return a sample as it travels."""
    return HardwareSummary(
        cpu_model=hardware.cpu_model,
        cpu_cores=hardware.logical_cores,
        cpu_percent=hardware.cpu_percent,
        memory_total_bytes=hardware.memory_total_bytes,
        memory_free_bytes=hardware.memory_available_bytes,
        disk_free_bytes=hardware.disk_free_bytes,
        gpus=tuple(_card(gpu) for gpu in hardware.gpus),
    )


def _card(gpu: Gpu) -> GpuSummary:
    return GpuSummary(
        index=gpu.index,
        uuid=gpu.uuid or "",
        name=gpu.name or "",
        memory_total_bytes=gpu.memory_total_bytes,
        memory_free_bytes=gpu.memory_free_bytes,
        utilization_percent=gpu.utilization_percent,
        temperature_c=gpu.temperature_c,
        power_w=gpu.power_w,
        power_limit_w=gpu.power_limit_w,
        compute_capability=gpu.compute_capability,
        error=gpu.error,
    )
