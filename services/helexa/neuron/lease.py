# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a request has of a model: what its runtime can do, how it is, and one of its slots."""

from typing import Protocol

from helexa.neuron.abilities import Abilities
from helexa.neuron.rate import Rate
from helexa.neuron.servability import Servability
from helexa.neuron.slots import Slot


class Leased(Protocol):
    """What is told how its requests go."""

    rate: Rate

    def finished(self, *, failed: bool) -> None:
        """Note that a request has ended."""


class Lease:
    """A request's hold on a model."""

    __slots__ = ("_model", "_slot", "abilities", "servability")

    def __init__(
        self, model: Leased, abilities: Abilities, servability: Servability, slot: Slot
    ) -> None:
        """Hold `slot` of `model` until `release`; the rest is of its runtime."""
        self.abilities = abilities
        self.servability = servability
        self._model = model
        self._slot = slot

    def count(self, tokens: int, now_s: float) -> None:
        """Note that `tokens` were made just now."""
        self._model.rate.add(tokens, now_s)
        self.servability.hear(now_s)

    def release(self, *, failed: bool) -> None:
        """Give the slot back; once is enough and more does no harm."""
        if self._slot.release():
            self._model.finished(failed=failed)
