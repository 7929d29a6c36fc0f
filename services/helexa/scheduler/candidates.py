# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Neurons as decisions see them: their last report, and what was sent to them since."""

from dataclasses import dataclass, field
from hashlib import blake2b

from helexa.protocol.messages.models import ModelState, Price
from helexa.protocol.reports import ModelReport, NeuronReport
from helexa.scheduler.history import Experience

NEVER = float("-inf")
_INFINITE = float("inf")


def key_of(name: str) -> int:
    """Return 64 bits that stand for `name`."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


@dataclass(slots=True, eq=False)
class Neuron:
    """One neuron."""

    status: NeuronReport
    seen_at: float
    """When it last reported."""
    slots_busy: int = 0
    """Of the host, with what was decided since the report."""
    candidates: dict[str, "Candidate"] = field(default_factory=dict)
    """By model."""


@dataclass(slots=True, eq=False)
class Candidate:
    """One neuron, seen from one model."""

    neuron: Neuron
    model: ModelReport | None
    """`None`: the neuron does not know the model."""
    model_slots_busy: int = 0
    """Of the model, with what was decided since the report."""
    experience: Experience = field(default_factory=Experience)
    price: Price = field(default_factory=Price)
    """What it asks."""
    looked_up_at: float = NEVER
    """When `experience` and `price` were found out."""
    handicap: float = 0.0
    """What spoke against it lately beside its load."""
    standing: float = 0.0
    """Load and handicap together; infinite where it takes nothing."""
    neuron_id: str = field(init=False)
    place: int = field(init=False)
    """64 bits for rendezvous hashing."""

    def __post_init__(self) -> None:
        """Take the neuron's name."""
        self.neuron_id = self.neuron.status.neuron_id
        self.place = key_of(self.neuron_id)

    @property
    def load(self) -> float:
        """The busy part of its slots, of the model's or the host's, whichever is more."""
        neuron, model = self.neuron, self.model
        load = 0.0
        total = neuron.status.slots_total
        if total > 0:
            load = neuron.slots_busy / total
        if model is not None and model.slots_total > 0:
            load = max(load, self.model_slots_busy / model.slots_total)
        return load

    def stand(self) -> None:
        """Work out its standing, after a change."""
        model = self.model
        takes_requests = (
            model is not None
            and model.state == ModelState.LOADED
            and model.servable
            and not self.neuron.status.draining
            and self.load < 1
        )
        self.standing = self.load + self.handicap if takes_requests else _INFINITE
