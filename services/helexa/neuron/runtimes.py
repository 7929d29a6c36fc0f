# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which kinds of backend this host can run."""

import importlib.util
import os
import shutil

import psutil

from helexa.neuron.backends.interface import Backend
from helexa.neuron.backends.kinds import BACKEND_KINDS, make_backend
from helexa.neuron.backends.limits import RuntimeLimits
from helexa.neuron.hardware import read_limits
from helexa.neuron.weights import ModelFiles
from helexa.process.settings import SettingsError
from helexa.protocol.messages.models import BackendKind, ModelConfig


def runnable_kinds(only: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the kinds whose programs are here, or those in `only`, whatever is here.

    Raises:
        SettingsError: one of `only` is not known.
    """
    for kind in only:
        if kind not in BACKEND_KINDS:
            known = ", ".join(BACKEND_KINDS)
            raise SettingsError(f"--backend-kinds: {kind!r} is none of {known}")
    return only or tuple(kind for kind in BACKEND_KINDS if _is_here(kind))


def build_backend(config: ModelConfig, files: ModelFiles) -> Backend:
    """Return a backend, not started.

    Raises:
        UnsupportedError: this neuron does not know the kind.
        ModelFailedError: the kind needs weights, and there are none.
    """
    return make_backend(
        config,
        model_path=files.model,
        projector_path=files.projector,
        limits=RuntimeLimits(threads=_threads()),
    )


def _threads() -> int:
    """Return how many threads one runtime may use: more than the quota would stall all of them."""
    allowed = len(os.sched_getaffinity(0))
    physical = psutil.cpu_count(logical=False) or allowed
    quota = read_limits().cpu_cores
    return max(1, min(physical, allowed, int(quota) if quota else allowed))


def _is_here(kind: str) -> bool:
    if kind == BackendKind.LLAMA_CPP:
        embedded = importlib.util.find_spec("xllamacpp") is not None
        return embedded or shutil.which("llama-server") is not None
    return kind != BackendKind.VLLM or shutil.which("vllm") is not None
