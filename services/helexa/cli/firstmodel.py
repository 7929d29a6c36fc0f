# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Waiting for the first model of a site that starts, and telling how far it is."""

import asyncio
from collections.abc import Callable, Iterable

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol import subjects
from helexa.protocol.messages.models import ModelState, ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus

PREFERRED = "helexa-tiny"


class FirstModel:
    """Hears what the neurons report until a model can be asked."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """Call `tell` with a line whenever a model's state changes."""
        self._tell = tell
        self._told: dict[str, str] = {}
        self._served: set[str] = set()
        self._found = asyncio.Event()

    def hear(self, status: NeuronStatus) -> None:
        """Take a neuron's report."""
        for model in status.models:
            line = describe(model)
            if self._told.get(str(model.model)) != line:
                self._told[str(model.model)] = line
                self._tell(f"{model.model}: {line}")
        self._served |= set(served(status.models))
        if self._served:
            self._found.set()

    async def wait(self) -> str:
        """Return the name of a model that can be asked; the small one if it is among them."""
        await self._found.wait()
        return PREFERRED if PREFERRED in self._served else min(self._served)


async def wait_for_model(
    connection: Connection, tell: Callable[[str], None], *, within_s: float
) -> str | None:
    """Return the first model that the site serves; `None` if it serves none within `within_s`."""
    first = FirstModel(tell)
    async with Bus(connection) as bus:
        try:
            async with asyncio.timeout(within_s):
                await bus.subscribe(subjects.NEURON_STATUS, first.hear)
                return await first.wait()
        except TimeoutError:
            return None


def served(models: Iterable[ModelStatus]) -> list[str]:
    """Return the names of the models that can be asked now."""
    return [str(m.model) for m in models if m.state == ModelState.LOADED and m.servable]


def describe(model: ModelStatus) -> str:
    """Return a model's state in words."""
    if model.error:
        return f"{model.state}, {model.error}"
    if model.progress is not None and model.state == ModelState.LOADING:
        return f"{model.state}, {model.progress:.0%}"
    return model.state
