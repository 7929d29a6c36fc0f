# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Desired state: the bucket of placements, and why each one became what it is."""

from collections import deque
from collections.abc import Callable

from helexa.bus.buckets import Bucket, Entry, Mirror
from helexa.bus.client import Bus
from helexa.protocol import resources
from helexa.protocol.errors import ConflictError
from helexa.protocol.messages.models import ModelId
from helexa.provisioner.records import Decision, Desired

DECISIONS_KEPT = 500


class Placements:
    """The placements of all models. Two writers never overwrite each other unseen."""

    def __init__(self, bus: Bus) -> None:
        """Read and write over `bus`; `mirror` has to be run."""
        self._bucket = Bucket(bus, resources.PLACEMENTS, Desired)
        self.mirror = Mirror(self._bucket)
        self._own: dict[str, Entry[Desired]] = {}

    def get(self, model: str) -> Entry[Desired] | None:
        """Return the newest placement that is known here: what was written counts at once."""
        heard = self.mirror.entries.get(model)
        own = self._own.get(model)
        if heard is None or own is None:
            return heard or own
        return own if own.revision > heard.revision else heard

    @property
    def models(self) -> list[str]:
        """Every model that has, or had, a placement."""
        return sorted({*self.mirror.entries, *self._own})

    async def write(self, desired: Desired, before: Entry[Desired] | None) -> None:
        """Replace the placement `before`.

        Raises:
            ConflictError: it is not the newest any more.
            UnavailableError: the bucket cannot be reached.
        """
        revision = before.revision if before else None
        written = await self._bucket.replace(desired.model, desired, revision)
        self._own[desired.model] = Entry(desired, written)

    async def change(self, model: ModelId, edit: Callable[[Desired], Desired]) -> Desired:
        """Apply `edit` to the placement of `model`, whoever else writes it.

        Raises:
            UnavailableError: the bucket cannot be reached.
        """
        while True:
            before = await self._bucket.get(model)
            edited = edit(before.value if before else Desired(model=model))
            try:
                await self.write(edited, before)
            except ConflictError:
                continue
            return edited


class DecisionLog:
    """The last decisions, the newest last."""

    def __init__(self) -> None:
        """Begin empty."""
        self._kept: deque[Decision] = deque(maxlen=DECISIONS_KEPT)

    def add(self, decision: Decision) -> None:
        """Keep a decision."""
        self._kept.append(decision)

    def last(self, limit: int, model: str | None = None) -> list[Decision]:
        """Return up to `limit` decisions, the newest first."""
        found = [each for each in reversed(self._kept) if model is None or each.model == model]
        return found[:limit]
