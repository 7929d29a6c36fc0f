# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The graphics cards of this host, read through NVML; no NVML error leaves this module."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import pynvml

logger = logging.getLogger(__name__)

T = TypeVar("T")

_UNAVAILABLE = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    }
)
_CARD_FAILED = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
    }
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card as NVML showed it at one moment.

    A value that the card, its driver or our permissions do not give is None, never 0: a card
    split by MIG has no utilisation, one that shares the host's memory has no memory of its own.
    """

    index: int
    """NVML's number of the card, by PCI address; CUDA may number the cards differently."""
    uuid: str | None
    name: str | None
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    memory_used_bytes: int | None
    utilization_percent: int | None
    """Share of the driver's last window (up to 1 s) in which a kernel ran, 0 to 100."""
    temperature_c: int | None
    power_w: float | None
    power_limit_w: float | None
    compute_capability: str | None
    """As in "9.0"."""
    error: str | None
    """Why this card cannot be used; then its readings are None and its identity is the last
    one seen, if it was ever read."""


class GpuReader:
    """Reads the cards anew on each call; a host without any is a normal host.

    A sick driver can block a call for seconds or for ever, so call it in a thread, and never
    from two threads at once.
    """

    def __init__(self) -> None:
        self._is_connected = False
        self._absence: str | None = None
        self._last_seen: dict[int, Gpu] = {}
        self._failing: dict[int, str] = {}

    @property
    def is_connected(self) -> bool:
        """True while NVML is initialised, also where it counts no card."""
        return self._is_connected

    def connect(self) -> bool:
        """Initialises NVML if it is not or if a card failed, and returns whether it is now.

        A lost card that was reset is seen only by a fresh initialisation. An attempt may load a
        kernel module, so the caller spaces the attempts.
        """
        if self._failing:
            self.close()
        if not self._is_connected:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError as error:
                self._note_absence(str(error))
                return False
            self._is_connected = True
        return True

    def close(self) -> None:
        """Releases NVML; reading again needs a new `connect`."""
        if self._is_connected:
            self._disconnect()

    def read(self) -> tuple[Gpu, ...]:
        """The cards of this host by index; empty while not connected."""
        if not self._is_connected:
            return ()
        try:
            count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            self._disconnect()
            self._note_absence(str(error))
            return ()
        if count == 0:
            self._note_absence("the driver counts no card")
            return ()
        self._absence = None
        return tuple(self._read_card(index) for index in range(count))

    def _read_card(self, index: int) -> Gpu:
        try:
            gpu = _read(index)
        except pynvml.NVMLError as error:
            return self._failed(index, str(error))
        self._last_seen[index] = gpu
        if self._failing.pop(index, None) is not None:
            logger.info("gpu_recovered", extra={"gpu": index, "uuid": gpu.uuid})
        return gpu

    def _failed(self, index: int, reason: str) -> Gpu:
        known = self._last_seen.get(index, _unknown(index))
        if self._failing.get(index) != reason:
            self._failing[index] = reason
            logger.warning("gpu_failed", extra={"gpu": index, "uuid": known.uuid, "why": reason})
        return replace(
            _unknown(index),
            uuid=known.uuid,
            name=known.name,
            compute_capability=known.compute_capability,
            error=reason,
        )

    def _note_absence(self, reason: str) -> None:
        if self._absence != reason:
            self._absence = reason
            logger.info("no_gpu", extra={"why": reason})

    def _disconnect(self) -> None:
        self._is_connected = False
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            # The driver went first; there is nothing left to release.
            logger.debug("nvml_shutdown_failed", extra={"why": str(error)})


def _unknown(index: int) -> Gpu:
    return Gpu(
        index=index,
        uuid=None,
        name=None,
        memory_total_bytes=None,
        memory_free_bytes=None,
        memory_used_bytes=None,
        utilization_percent=None,
        temperature_c=None,
        power_w=None,
        power_limit_w=None,
        compute_capability=None,
        error=None,
    )


def _read(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _known(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    utilization = _telemetry(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    power_mw = _telemetry(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    limit_mw = _telemetry(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    capability = _telemetry(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Gpu(
        index=index,
        uuid=_known(lambda: str(pynvml.nvmlDeviceGetUUID(handle))),
        name=_known(lambda: str(pynvml.nvmlDeviceGetName(handle))),
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_free_bytes=None if memory is None else int(memory.free),
        memory_used_bytes=None if memory is None else int(memory.used),
        utilization_percent=None if utilization is None else int(utilization),
        temperature_c=_temperature(handle),
        power_w=None if power_mw is None else power_mw / 1000,
        power_limit_w=None if limit_mw is None else limit_mw / 1000,
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        error=None,
    )


def _temperature(handle: object) -> int | None:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    # Older drivers lack the versioned call, and newer ones deprecate the plain one.
    current = _telemetry(lambda: int(pynvml.nvmlDeviceGetTemperatureV(handle, sensor)))
    if current is not None:
        return current
    return _telemetry(lambda: int(pynvml.nvmlDeviceGetTemperature(handle, sensor)))


def _known(read: Callable[[], T]) -> T | None:
    """The value, None where the card has none; any other error means that the card failed."""
    try:
        return read()
    except pynvml.NVMLError as error:
        if error.value in _UNAVAILABLE:
            return None
        raise


def _telemetry(read: Callable[[], T]) -> T | None:
    """The value, or None; only an error that says so means that the card failed.

    Healthy cards of some laptops answer "unknown error" for their power, so such an answer must
    not take a card out of service.
    """
    try:
        return read()
    except pynvml.NVMLError as error:
        if error.value in _CARD_FAILED:
            raise
        return None
