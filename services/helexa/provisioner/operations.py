# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What an operator can have done. Any replica takes it; the leader hears of it by the buckets."""

from helexa.protocol.errors import NotFoundError, UnavailableError
from helexa.protocol.messages.models import ModelConfig
from helexa.protocol.messages.provisioning import Ensured
from helexa.provisioner.enrolment import Enrolment
from helexa.provisioner.neuron_client import RemoteNeuron
from helexa.provisioner.outlook import outlook
from helexa.provisioner.records import Desired
from helexa.provisioner.service import Provisioner


class Operations:
    """An operator's orders to one site."""

    def __init__(self, provisioner: Provisioner) -> None:
        """Act through one replica."""
        self._provisioner = provisioner
        self._state = provisioner.state

    async def put_model(self, config: ModelConfig) -> None:
        """Add a model or change it; replicas take the change one after another.

        Raises:
            BadRequestError: the configuration contradicts itself.
            ConflictError: it contradicts another model.
            UnavailableError: the buckets cannot be reached.
        """
        await self._state.catalogue.put(config)

    async def remove_model(self, name: str) -> None:
        """Take a model out; neurons unload and forget it.

        Raises:
            UnknownModelError: there is no such model.
            UnavailableError: the buckets cannot be reached.
        """
        model = self._state.catalogue.resolve(name).model
        await self._state.catalogue.remove(model)

    async def load(self, name: str, neuron_id: str | None = None) -> Ensured:
        """Have a model loaded, on a certain neuron or anywhere, until it is unloaded again.

        Raises:
            UnknownModelError: there is no such model.
            NotFoundError: there is no such neuron.
            ModelFailedError: it fails wherever it could be loaded.
            NoCapacityError: there is no room for it now.
            UnavailableError: the buckets cannot be reached.
        """
        model = self._state.catalogue.resolve(name).model
        if neuron_id is not None and self._state.registry.host(neuron_id) is None:
            raise NotFoundError(f"there is no neuron {neuron_id}")

        def edit(desired: Desired) -> Desired:
            there = {*desired.asked_neurons, neuron_id} if neuron_id else desired.asked_neurons
            fresh = {"stopped": False, "removed": False, "asked": True}
            return desired.model_copy(
                update={**fresh, "asked_neurons": tuple(sorted(name for name in there if name))}
            )

        await self._state.placements.change(model, edit)
        self._provisioner.want(model, 1)
        return outlook(self._state, model)

    async def unload(self, name: str) -> None:
        """Have a model unloaded everywhere, until it is asked for again.

        Raises:
            UnknownModelError: there is no such model.
            UnavailableError: the buckets cannot be reached.
        """
        model = self._state.catalogue.resolve(name).model
        holders = tuple(
            host.neuron_id for host in self._state.registry.hosts() if host.has_loaded(model)
        )

        def edit(desired: Desired) -> Desired:
            update = {"stopped": True, "asked": False, "asked_neurons": ()}
            return desired.model_copy(
                update={**update, "neurons": desired.neurons or holders, "removed": False}
            )

        await self._state.placements.change(model, edit)

    async def unload_all(self) -> list[str]:
        """Have every model unloaded; return their names.

        Raises:
            UnavailableError: the buckets cannot be reached.
        """
        names = sorted(self._state.catalogue.models)
        for name in names:
            await self.unload(name)
        return names

    async def drain(self, neuron_id: str, *, draining: bool) -> None:
        """Have a neuron take no new work, or take work again.

        Raises:
            NotFoundError: there is no such neuron.
            UnavailableError: it cannot be reached.
        """
        if self._state.registry.host(neuron_id) is None:
            raise NotFoundError(f"there is no neuron {neuron_id}")
        await RemoteNeuron(self._provisioner.bus, neuron_id).drain(draining=draining)

    async def remove_neuron(self, neuron_id: str) -> None:
        """Forget a neuron and let it in no more; its id is free again.

        Raises:
            NotFoundError: there is no such neuron.
            UnavailableError: the buckets or the site's servers cannot be reached.
        """
        known = neuron_id in self._state.registry.mirror.entries
        if self._provisioner.enrolment is not None:
            try:
                await self._provisioner.enrolment.expel(neuron_id)
            except NotFoundError:
                if not known:
                    raise
        elif not known:
            raise NotFoundError(f"there is no neuron {neuron_id}")
        await self._provisioner.identities.release(neuron_id)
        await self._state.registry.remove(neuron_id, "removed by the operator")

    @property
    def enrolment(self) -> Enrolment:
        """Who may join.

        Raises:
            UnavailableError: this process cannot change that.
        """
        if self._provisioner.enrolment is None:
            raise UnavailableError(
                "this provisioner cannot let neurons in: it has no access to the servers' files"
            )
        return self._provisioner.enrolment
