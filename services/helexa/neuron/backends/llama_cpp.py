# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""llama.cpp: the embedded one, a `llama-server` of this host, or any program with its flags."""

import asyncio
import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import psutil
from typing_extensions import override

from helexa.neuron.backends.gguf import GgufError, GgufHeader, read_header
from helexa.neuron.backends.limits import RuntimeLimits
from helexa.neuron.backends.place import Place
from helexa.neuron.backends.ports import free_port
from helexa.neuron.backends.spawned import SpawnedBackend
from helexa.protocol.errors import BackendError, ModelFailedError
from helexa.protocol.messages.models import ContinuationWay, ModelConfig, Workload

_EMBEDDED = "xllamacpp"
_SMALL_BYTES = 64 << 20
"""Below this a model gains nothing from a second thread; two of them stall on busy cores."""
_USUAL_CONTEXT_TOKENS = 8192
"""The most that a slot gets unasked: the memory for a context is taken at the start, for each
slot, and for the context that a large model was trained with it exceeds most hosts."""
_SMALL_BATCH_TOKENS = 2048
_BATCH_TOKENS = 512
"""What llama.cpp takes at once unless it is told."""
_CPU_INFO = Path("/proc/cpuinfo")


class LlamaCppBackend(SpawnedBackend):
    """A model in a GGUF file.

    Args:
        config: of the model; its `command` replaces the program, its `args` follow our flags.
        model_path: the GGUF file.
        projector_path: the GGUF file of an image or audio encoder.
        limits: what the runtime may use.
        choose_port: where the configuration names none.
    """

    own_way = ContinuationWay.ASSISTANT_MESSAGE

    def __init__(
        self,
        config: ModelConfig,
        *,
        model_path: Path,
        projector_path: Path | None = None,
        limits: RuntimeLimits | None = None,
        choose_port: Callable[[], int] = free_port,
    ) -> None:
        super().__init__(config, model_path=model_path, limits=limits, choose_port=choose_port)
        self._file = model_path
        self._projector = projector_path
        self._header = GgufHeader("", None, is_embedding_model=False)
        self._is_small = False

    @override
    async def check(self) -> None:
        for path, what in ((self._file, "model"), (self._projector, "projector")):
            if path is not None and not await asyncio.to_thread(path.is_file):
                raise ModelFailedError(f"the {what}'s file {path.name} is missing")
        try:
            self._header = await asyncio.to_thread(read_header, self._file)
            self._is_small = self._file.stat().st_size < _SMALL_BYTES
        except GgufError as error:
            raise ModelFailedError(str(error)) from error
        except OSError as error:
            raise ModelFailedError(f"the model's file cannot be read: {error.strerror}") from error
        if not self.config.command and _is_embedded():
            check_processor(platform.machine(), await asyncio.to_thread(_cpu_info))

    @override
    def command(self, place: Place) -> Sequence[str]:
        context = self.context_tokens
        command = [*self._program(), "-m", str(self._file)]
        command += ["--alias", str(self.config.model), "--host", place.host]
        command += ["--port", str(place.port), "--api-key-file", str(place.key_file)]
        # The context given is shared by the slots.
        command += ["-c", str(context * self.slots), "-np", str(self.slots)]
        command += ["-t", str(self._threads())]
        # A kept connection holds a thread of the server even while it is idle.
        command += ["--threads-http", str(2 * self.slots + 4)]
        command += ["--metrics", "--jinja", "--no-webui"]
        if self._projector is not None:
            command += ["--mmproj", str(self._projector)]
        return command + self._embedding_flags(context)

    @override
    def environment(self, place: Place) -> dict[str, str]:
        # Else an assertion that fails starts a debugger where there is one, for seconds.
        return {"GGML_NO_BACKTRACE": "1"}

    @property
    def context_tokens(self) -> int:
        """Context of one slot."""
        trained = self._header.context_tokens or _USUAL_CONTEXT_TOKENS
        return self.config.context_tokens or min(trained, _USUAL_CONTEXT_TOKENS)

    @override
    async def complete_capability(self) -> None:
        status, body = await self.connected().fetch("/props")
        if status != HTTPStatus.OK:
            raise BackendError("does not tell its properties")
        properties = json.loads(body)
        settings = properties.get("default_generation_settings", {})
        known = {
            "workloads": self._workloads(properties.get("modalities", {})),
            "max_context_tokens": settings.get("n_ctx") or self.context_tokens,
            "continues_partial": self.way is not None and not self._header.is_embedding_model,
        }
        self.capability = self.config.capability.model_copy(update=known)

    def _program(self) -> Sequence[str]:
        if self.config.command:
            return self.config.command
        if _is_embedded():
            return (sys.executable, "-P", "-m", "helexa.neuron.backends.llama_child")
        return (self.program("llama-server"),)

    def _threads(self) -> int:
        if self._is_small:
            return 1
        return self.limits.threads or psutil.cpu_count(logical=False) or 1

    @property
    def _embeds(self) -> bool:
        asked = Workload.EMBEDDING in self.config.capability.workloads
        return asked or self._is_small or self._header.is_embedding_model

    def _embedding_flags(self, context: int) -> list[str]:
        if not self._embeds:
            return []
        flags = ["--embeddings"]
        # A text to embed must fit one batch. That of a large chat model stays small: it would
        # reserve a row of the whole vocabulary for each token.
        if self._header.is_embedding_model:
            return [*flags, *self._batch(context)]
        if self._is_small:
            flags += self._batch(min(context, _SMALL_BATCH_TOKENS))
        elif _BATCH_TOKENS % self.slots:
            flags += self._batch(_BATCH_TOKENS)
        return [*flags, "--pooling", "mean"]

    def _batch(self, tokens: int) -> list[str]:
        # Taking the mean of a batch that the slots do not divide ends in an assertion.
        whole = str(max(self.slots, tokens - tokens % self.slots))
        return ["-b", whole, "-ub", whole]

    def _workloads(self, modalities: Mapping[str, object]) -> tuple[str, ...]:
        if self._header.is_embedding_model:
            return (Workload.EMBEDDING,)
        found = list(self.config.capability.workloads)
        if self._embeds:
            found.append(Workload.EMBEDDING)
        if modalities.get("vision"):
            found.append(Workload.VISION)
        if modalities.get("audio"):
            found.append(Workload.AUDIO)
        return tuple(dict.fromkeys(found))


def check_processor(machine: str, cpu_info: str) -> None:
    """Return if the embedded llama.cpp runs on this processor; it would be killed on others.

    Args:
        machine: as `platform.machine()` says it.
        cpu_info: the text of /proc/cpuinfo; empty where it is not known.

    Raises:
        ModelFailedError: the processor lacks AVX2.
    """
    if machine.lower() not in {"x86_64", "amd64"} or not cpu_info:
        return
    if "avx2" not in cpu_info.split():
        raise ModelFailedError(
            "the embedded llama.cpp needs a processor with AVX2; install llama-server and name it "
            "in the model's command"
        )


def _is_embedded() -> bool:
    return importlib.util.find_spec(_EMBEDDED) is not None


def _cpu_info() -> str:
    try:
        return _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
