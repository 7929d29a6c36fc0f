# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How much memory a model needs, and how much a host has left for it."""

from collections.abc import Iterable
from dataclasses import dataclass

from helexa.protocol.messages.models import ModelConfig, ModelState, ModelStatus
from helexa.protocol.messages.neurons import HardwareSummary

GIB = 1024**3
ASSUMED_BYTES = GIB
"""For a model of which nothing is declared or measured: never nothing."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a replica needs. Where a host has no GPU, the GPU's part counts as ordinary memory."""

    memory_bytes: int
    gpu_bytes: int
    known_by: str
    """`measured`, `declared` or `assumed`."""

    def on(self, room: "Room") -> "Size":
        """Return the same as it is on a host with such memory."""
        if room.has_gpu or not self.gpu_bytes:
            return self
        return Size(max(self.memory_bytes, self.gpu_bytes), 0, self.known_by)


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of a host: free now, and all of it."""

    memory_free: int
    memory_total: int
    gpu_free: int
    gpu_total: int

    @property
    def has_gpu(self) -> bool:
        """Whether it has a GPU that works."""
        return self.gpu_total > 0

    def less(self, size: Size) -> "Room":
        """Return the room beside a replica of `size`."""
        need = size.on(self)
        return Room(
            self.memory_free - need.memory_bytes,
            self.memory_total,
            self.gpu_free - need.gpu_bytes,
            self.gpu_total,
        )

    def plus(self, size: Size) -> "Room":
        """Return the room when a replica of `size` is gone."""
        need = size.on(self)
        return Room(
            min(self.memory_free + need.memory_bytes, self.memory_total),
            self.memory_total,
            min(self.gpu_free + need.gpu_bytes, self.gpu_total),
            self.gpu_total,
        )

    def lacks(self, size: Size) -> str | None:
        """Return what is missing for a replica of `size` now, or `None` if it fits."""
        need = size.on(self)
        if need.gpu_bytes > self.gpu_free:
            return _shortage(need.gpu_bytes, self.gpu_free, "free on its GPUs", need.known_by)
        if need.memory_bytes > self.memory_free:
            return _shortage(need.memory_bytes, self.memory_free, "free", need.known_by)
        return None

    def never_holds(self, size: Size) -> str | None:
        """Return why a replica of `size` could not even run alone, or `None` if it could."""
        if not self.memory_total:
            return "its memory is not known"
        need = size.on(self)
        if need.gpu_bytes > self.gpu_total:
            return _shortage(need.gpu_bytes, self.gpu_total, "on all its GPUs", need.known_by)
        if need.memory_bytes > self.memory_total:
            return _shortage(need.memory_bytes, self.memory_total, "in all", need.known_by)
        return None


def size_of(config: ModelConfig, reported: Iterable[ModelStatus]) -> Size:
    """Return what a replica of `config` needs.

    Measured use counts where nothing is declared, and where it is more than what is declared.

    Args:
        config: The model.
        reported: What neurons report of replicas of this model.
    """
    measured = max(
        (
            each.memory_bytes
            for each in reported
            if each.state == ModelState.LOADED and each.memory_bytes
        ),
        default=None,
    )
    capability = config.capability
    if capability.vram_bytes is not None:
        return Size(capability.memory_bytes or 0, capability.vram_bytes, "declared")
    declared = capability.memory_bytes
    if measured is not None and measured > (declared or 0):
        return Size(measured, 0, "measured")
    if declared is not None:
        return Size(declared, 0, "declared")
    return Size(ASSUMED_BYTES, 0, "assumed")


def room_of(hardware: HardwareSummary, in_use: Iterable[Size]) -> Room:
    """Return the room of a host.

    A GPU whose driver does not tell what is free counts as holding `in_use`.
    """
    cards = [gpu for gpu in hardware.gpus if gpu.error is None and gpu.memory_total_bytes]
    total = sum(gpu.memory_total_bytes or 0 for gpu in cards)
    if any(gpu.memory_free_bytes is None for gpu in cards):
        free = max(0, total - sum(size.gpu_bytes for size in in_use))
    else:
        free = sum(gpu.memory_free_bytes or 0 for gpu in cards)
    return Room(hardware.memory_free_bytes, hardware.memory_total_bytes, free, total)


def shown(size: int) -> str:
    """Return a number of bytes for people."""
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{max(size, 0) / 1024**2:.0f} MiB"


def _shortage(need: int, have: int, where: str, known_by: str) -> str:
    return f"needs {shown(need)} ({known_by}), has {shown(have)} {where}"
