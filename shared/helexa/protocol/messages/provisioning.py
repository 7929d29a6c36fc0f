# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Orders to neurons and what comes back; what is wanted where."""

from typing import Annotated, Literal

from pydantic import Field

from helexa.protocol.messages.base import Message, Record
from helexa.protocol.messages.models import ModelConfig, ModelId


class UpsertModelConfig(Message):
    """Know this model, or know it anew; a loaded model takes the change at its next load."""

    kind: Literal["upsert_model_config"] = "upsert_model_config"
    config: ModelConfig


class LoadModel(Message):
    """Load a known model. On a model that is loading, joins that load."""

    kind: Literal["load_model"] = "load_model"
    model: ModelId


class UnloadModel(Message):
    """Unload a model after what it is serving has finished."""

    kind: Literal["unload_model"] = "unload_model"
    model: ModelId
    forget: bool = False
    """Forget its configuration too."""


ProvisioningCommand = Annotated[
    UpsertModelConfig | LoadModel | UnloadModel, Field(discriminator="kind")
]


class ProvisionRequest(Message):
    """One command, fenced by the lease under which it was decided."""

    command: ProvisioningCommand
    fence: int = 0
    """Revision of the leader's lease; a neuron refuses a lower one than it has seen."""


class ProvisioningOk(Message):
    """It is done."""

    kind: Literal["ok"] = "ok"
    model_id: ModelId
    message: str = ""


class ProvisioningError(Message):
    """It could not be done."""

    kind: Literal["error"] = "error"
    model_id: ModelId
    error: str
    code: str = "error"
    """The code of an error in `helexa.protocol.errors`."""


ProvisioningOutcome = Annotated[ProvisioningOk | ProvisioningError, Field(discriminator="kind")]


class ProvisioningResponse(Message):
    """A neuron's answer to a command."""

    outcome: ProvisioningOutcome


class Placement(Record):
    """Where a model shall be loaded, and why."""

    model: ModelId
    neurons: tuple[str, ...] = ()
    reason: str = ""
    decided_at_ms: int = 0
    """Wall clock of the leader, for people."""


class EnsureRequest(Message):
    """Somebody waits for a model: make sure that it is loaded somewhere."""

    model: ModelId
    request_id: str = ""
    waiting: int = 1
    """Requests that wait for it at the asking gateway."""


class Ensured(Message):
    """What is being done about it."""

    state: Literal["loaded", "loading", "impossible"]
    neurons: tuple[str, ...] = ()
    reason: str = ""
    progress: float | None = None
