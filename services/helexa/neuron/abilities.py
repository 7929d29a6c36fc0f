# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a loaded runtime can do: found out once, and not again for each request."""

from dataclasses import dataclass

from helexa.neuron.backends.interface import (
    Backend,
    ChatContinuation,
    ChatInference,
    EmbeddingInference,
    TextInference,
    VisionInference,
    WholeInference,
)
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import Workload


@dataclass(frozen=True, slots=True)
class Abilities:
    """The runtime, as one that can do each of these; `None` where it cannot."""

    chat: ChatInference | None
    text: TextInference | None
    embedding: EmbeddingInference | None
    vision: VisionInference | None
    continuation: ChatContinuation | None
    whole: WholeInference | None
    """Also where a whole answer cannot be stopped, as its `stops_when_left` says."""

    def does(self, operation: str) -> bool:
        """Whether it does an `Operation`."""
        if operation == Operation.CHAT:
            return self.chat is not None
        if operation == Operation.COMPLETION:
            return self.text is not None
        return operation == Operation.EMBEDDING and self.embedding is not None


def abilities_of(backend: Backend) -> Abilities:
    """Return what `backend` can do, by its methods and its capability."""
    does = set(backend.capability.workloads)
    continues = backend.capability.continues_partial
    return Abilities(
        chat=backend if isinstance(backend, ChatInference) and Workload.CHAT in does else None,
        text=backend
        if isinstance(backend, TextInference) and Workload.COMPLETION in does
        else None,
        embedding=(
            backend
            if isinstance(backend, EmbeddingInference) and Workload.EMBEDDING in does
            else None
        ),
        vision=(
            backend if isinstance(backend, VisionInference) and Workload.VISION in does else None
        ),
        continuation=backend if isinstance(backend, ChatContinuation) and continues else None,
        whole=backend if isinstance(backend, WholeInference) else None,
    )
