# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which key each neuron's id belongs to. The first one to come keeps the id."""

from helexa.bus.buckets import Bucket
from helexa.bus.client import Bus
from helexa.protocol import resources
from helexa.protocol.errors import ConflictError, IdentityConflictError
from helexa.provisioner.records import BoundKey


class Identities:
    """The bound ids of a site, the same for all replicas."""

    def __init__(self, bus: Bus) -> None:
        """Keep them in the site's bucket."""
        self._bucket = Bucket(bus, resources.IDENTITIES, BoundKey)

    async def bind(self, neuron_id: str, public_key: str) -> bool:
        """Make `neuron_id` belong to `public_key`; return whether it did not before.

        Raises:
            IdentityConflictError: it belongs to another key.
            UnavailableError: the bucket cannot be reached.
        """
        bound = await self._bucket.get(neuron_id)
        if bound is None:
            try:
                await self._bucket.replace(neuron_id, BoundKey(public_key=public_key), None)
            except ConflictError:
                bound = await self._bucket.get(neuron_id)
            else:
                return True
        if bound is None or bound.value.public_key != public_key:
            raise IdentityConflictError(f"the id {neuron_id} belongs to another key")
        return False

    async def check(self, neuron_id: str, public_key: str) -> None:
        """Refuse `neuron_id` if it belongs to another key than `public_key`.

        Raises:
            IdentityConflictError: it does.
            UnavailableError: the bucket cannot be reached.
        """
        bound = await self._bucket.get(neuron_id)
        if bound is not None and bound.value.public_key != public_key:
            raise IdentityConflictError(f"the id {neuron_id} belongs to another key")

    async def release(self, neuron_id: str) -> None:
        """Let `neuron_id` belong to nobody."""
        await self._bucket.delete(neuron_id)
