# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The model that an empty catalogue begins with, so that a new site answers at once."""

import logging

from helexa.protocol.messages.models import (
    BackendKind,
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelPolicy,
    Workload,
)
from helexa.protocol.resources import MIB
from helexa.provisioner.catalogue import Catalogue
from helexa.provisioner.placements import Placements

_log = logging.getLogger(__name__)

SOURCE = "embedded:helexa-tiny"
ADD_A_MODEL = "helexa models add qwen3-0.6b --source hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf"
"""The command that adds a real model."""

EMBEDDED_MODEL = ModelConfig(
    model=ModelId("helexa-tiny"),
    backend_kind=BackendKind.LLAMA_CPP,
    source=SOURCE,
    projector=SOURCE,
    context_tokens=2048,
    slots=8,
    capability=ModelCapability(
        workloads=(Workload.CHAT, Workload.COMPLETION, Workload.EMBEDDING, Workload.VISION),
        max_context_tokens=2048,
        memory_bytes=256 * MIB,
    ),
    policy=ModelPolicy(min_replicas=1, on_every_neuron=True),
)


async def seed_catalogue(catalogue: Catalogue, placements: Placements) -> bool:
    """Put the embedded model into a catalogue that is empty; return whether it was put there.

    A site whose operator has taken the model out is left without it.

    Raises:
        UnavailableError: the bucket cannot be reached.
    """
    if catalogue.models or placements.get(EMBEDDED_MODEL.model) is not None:
        return False
    if not await catalogue.create(EMBEDDED_MODEL):
        return False
    _log.info(
        "catalogue_seeded",
        extra={
            "model": EMBEDDED_MODEL.model,
            "hint": f"this toy proves that the site works; add a real model: {ADD_A_MODEL}",
        },
    )
    return True
