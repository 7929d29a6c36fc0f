# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The kinds of backend that a neuron can run."""

from pathlib import Path

from helexa.neuron.backends.command import CommandBackend
from helexa.neuron.backends.interface import Backend
from helexa.neuron.backends.limits import RuntimeLimits
from helexa.neuron.backends.llama_cpp import LlamaCppBackend
from helexa.neuron.backends.openai_proxy import OpenAiProxyBackend
from helexa.neuron.backends.vllm import VllmBackend
from helexa.protocol.errors import ModelFailedError, UnsupportedError
from helexa.protocol.messages.models import BackendKind, ModelConfig


def make_backend(
    config: ModelConfig,
    *,
    model_path: Path | None = None,
    projector_path: Path | None = None,
    limits: RuntimeLimits | None = None,
) -> Backend:
    """Return a backend for a model, not started.

    Args:
        config: of the model.
        model_path: its weights on this host, where the kind needs them.
        projector_path: the file of its image or audio encoder.
        limits: what the runtime may use.

    Raises:
        UnsupportedError: this neuron does not know the kind.
        ModelFailedError: the kind needs weights, and there are none.
    """
    build = _BUILDERS.get(config.backend_kind)
    if build is None:
        known = ", ".join(BACKEND_KINDS)
        raise UnsupportedError(f"there is no backend {config.backend_kind!r}; known are {known}")
    return build(config, model_path, projector_path, limits or RuntimeLimits())


def _llama_cpp(
    config: ModelConfig, model: Path | None, projector: Path | None, limits: RuntimeLimits
) -> Backend:
    if model is None:
        raise ModelFailedError("a llama_cpp model needs the file of its weights")
    return LlamaCppBackend(config, model_path=model, projector_path=projector, limits=limits)


def _vllm(
    config: ModelConfig, model: Path | None, _projector: Path | None, limits: RuntimeLimits
) -> Backend:
    return VllmBackend(config, model_path=model, limits=limits)


def _command(
    config: ModelConfig, model: Path | None, _projector: Path | None, limits: RuntimeLimits
) -> Backend:
    return CommandBackend(config, model_path=model, limits=limits)


def _openai_proxy(
    config: ModelConfig, _model: Path | None, _projector: Path | None, limits: RuntimeLimits
) -> Backend:
    return OpenAiProxyBackend(config, timeouts=limits.timeouts)


_BUILDERS = {
    BackendKind.LLAMA_CPP: _llama_cpp,
    BackendKind.VLLM: _vllm,
    BackendKind.OPENAI_PROXY: _openai_proxy,
    BackendKind.COMMAND: _command,
}
BACKEND_KINDS = tuple(_BUILDERS)
"""Values of `ModelConfig.backend_kind` that `make_backend` knows."""
