# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the provisioner itself keeps and tells: desired state, decisions, bound keys."""

import time

from pydantic import Field

from helexa.protocol.messages.base import Record
from helexa.protocol.messages.events import StateEvent
from helexa.protocol.messages.provisioning import Placement


class Desired(Placement):
    """Where a model shall be, and what an operator has said about it."""

    asked: bool = False
    asked_neurons: tuple[str, ...] = ()
    stopped: bool = False
    removed: bool = False
    """It is no longer in the catalogue; neurons that still have it shall forget it."""


class BoundKey(Record):
    """The key that a neuron's id belongs to."""

    public_key: str


class Decision(Record):
    """One change of a model's placement, with what spoke for it."""

    at_ms: int
    model: str
    before: tuple[str, ...] = ()
    neurons: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    wanted: int = 0
    waiting: int = 0
    needs: str = ""
    rejected: dict[str, str] = Field(default_factory=dict)
    decided_by: str = ""


class PlacementChanged(StateEvent):
    """A decision, as it is told to everybody."""

    decision: Decision


class ModelWanted(StateEvent):
    """Somebody waits for a model; tells the leader what another replica was asked."""

    waiting: int = 1


MODEL_WANTED = "model_wanted"


def wall_ms() -> int:
    """Return the time of day, for people."""
    return int(time.time() * 1000)
