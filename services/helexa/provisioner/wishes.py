# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Puts together what is wanted of each model: catalogue, desired state, demand and failures."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from helexa.protocol.messages.models import ModelConfig, ModelState
from helexa.provisioner.backoff import Backoff
from helexa.provisioner.catalogue import Catalogue, config_digest
from helexa.provisioner.demand import Demand
from helexa.provisioner.hosts import Host, Wish
from helexa.provisioner.placements import Placements
from helexa.provisioner.records import Desired


class Wishes:
    """What this replica knows of each model besides what neurons report."""

    def __init__(
        self,
        catalogue: Catalogue,
        placements: Placements,
        demand: Demand,
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        """Combine the parts; times are those of `clock`."""
        self.demand = demand
        self.backoff = backoff
        self._catalogue = catalogue
        self._placements = placements
        self._clock = clock
        self._changed_at: dict[str, float] = {}
        self._stopped_at: dict[str, float] = {}
        self._digests: dict[str, tuple[ModelConfig, str]] = {}
        """Of the configurations as they were seen last."""

    def all(self, hosts: Sequence[Host]) -> list[Wish]:
        """Return a wish for each model of the catalogue."""
        present = frozenset(host.neuron_id for host in hosts)
        holders: defaultdict[str, list[Host]] = defaultdict(list)
        for host in hosts:
            for model in host.models:
                holders[model].append(host)
        return [
            self._wish(config, holders.get(config.model, ()), present)
            for config in self._catalogue.models.values()
        ]

    def changed(self, model: str) -> None:
        """Note that the placement of a model has just been changed."""
        self._changed_at[model] = self._clock()

    def is_removed(self, model: str) -> bool:
        """Whether a model was here once and has been taken out of the catalogue."""
        entry = self._placements.get(model)
        return entry is not None and entry.value.removed

    def _wish(self, config: ModelConfig, hosts: Sequence[Host], present: frozenset[str]) -> Wish:
        """Return the wish for one model; `hosts` are those that report it."""
        name = config.model
        now = self._clock()
        digest = self._digest(config)
        entry = self._placements.get(name)
        desired = entry.value if entry and not entry.value.removed else None
        if any(_has_room(host, name) for host in hosts):
            self.demand.settle(name)
        failures = {
            neuron_id: failure
            for neuron_id, failure in self.backoff.of_model(name).items()
            if neuron_id in present
        }
        return Wish(
            config=config,
            digest=digest,
            # A model that was never placed from here may be there all the same: take it over.
            current=desired.neurons if desired else tuple(_holders(hosts, name)),
            asked=desired.asked if desired else False,
            asked_neurons=desired.asked_neurons if desired else (),
            stopped=self._is_stopped(name, desired, now),
            waiting=self.demand.waiting(name, now),
            changed_s_ago=now - self._changed_at.get(name, float("-inf")),
            failures=failures,
            blocked=frozenset(
                neuron_id for neuron_id, failure in failures.items() if failure.until > now
            ),
        )

    def _is_stopped(self, name: str, desired: Desired | None, now: float) -> bool:
        if desired is None or not desired.stopped:
            self._stopped_at.pop(name, None)
            return False
        since = self._stopped_at.setdefault(name, now)
        asked_at = self.demand.last_at(name)
        return asked_at is None or asked_at < since

    def _digest(self, config: ModelConfig) -> str:
        """Return the digest of a configuration, and notice when that has changed."""
        name = config.model
        known, digest = self._digests.get(name, (None, ""))
        if known is config:
            return digest
        new = config_digest(config)
        if known is not None and digest != new:
            # What failed before may work with what it says now.
            self.backoff.forget_model(name)
        self._digests[name] = (config, new)
        return new


def _holders(hosts: Sequence[Host], model: str) -> list[str]:
    return sorted(host.neuron_id for host in hosts if host.has_loaded(model))


def _has_room(host: Host, model: str) -> bool:
    found = host.model(model)
    return (
        found is not None
        and found.state == ModelState.LOADED
        and found.servable
        and not host.draining
        and (not found.slots_total or found.slots_busy < found.slots_total)
    )
