# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""vLLM: `vllm serve`, for models on GPUs."""

from collections.abc import Sequence

from typing_extensions import override

from helexa.neuron.backends.place import Place
from helexa.neuron.backends.spawned import SpawnedBackend
from helexa.protocol.errors import ModelFailedError
from helexa.protocol.messages.models import ContinuationWay


class VllmBackend(SpawnedBackend):
    """A model served by vLLM, from a folder of this host or a repository of the Hugging Face hub.

    The configuration's `command` replaces `vllm serve`; its `args` follow our flags
    (`--tensor-parallel-size`, `--enable-auto-tool-choice` and the like).
    """

    default_slots = 32
    own_way = ContinuationWay.CONTINUE_FINAL_MESSAGE
    own_stops_when_left = True

    @override
    async def check(self) -> None:
        if not self.config.command:
            self.program("vllm")

    @override
    def command(self, place: Place) -> Sequence[str]:
        command = [*(self.config.command or ("vllm", "serve")), self._weights()]
        command += ["--host", place.host, "--port", str(place.port)]
        command += ["--served-model-name", str(self.config.model)]
        command += ["--max-num-seqs", str(self.slots)]
        if self.config.context_tokens is not None:
            command += ["--max-model-len", str(self.config.context_tokens)]
        return command

    @override
    def environment(self, place: Place) -> dict[str, str]:
        # Not an argument: those can be read by every user of the host.
        return {"VLLM_API_KEY": place.api_key}

    def _weights(self) -> str:
        if self.model_path is not None:
            return str(self.model_path)
        source = self.config.source
        if not source:
            raise ModelFailedError("the model's configuration names no source of its weights")
        if source.startswith("hf:"):
            return "/".join(source.removeprefix("hf:").partition("@")[0].split("/")[:2])
        return source
