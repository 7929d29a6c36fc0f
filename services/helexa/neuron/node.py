# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One neuron put together: its models, its sites, and the order in which it ends."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helexa.bus.client import Bus
from helexa.neuron.admission import Applicant, keep_admitted
from helexa.neuron.hardware import HardwareMonitor
from helexa.neuron.hardware_feed import HardwareFeed
from helexa.neuron.hosted import MakeBackend, Runtime
from helexa.neuron.identity import keep_node_id
from helexa.neuron.joining import Site, neuron_connection
from helexa.neuron.meters import Meters
from helexa.neuron.models import ModelHost
from helexa.neuron.pace import Pace
from helexa.neuron.presence import Presence
from helexa.neuron.restarts import RestartPolicy
from helexa.neuron.room import BulkRoom
from helexa.neuron.runtimes import build_backend
from helexa.neuron.settings import NeuronSettings
from helexa.neuron.site import Run, Sharing, SiteLink
from helexa.neuron.slots import SlotPool
from helexa.neuron.weights import Weights
from helexa.process.metrics import Metrics
from helexa.protocol.errors import BadRequestError, IdentityConflictError
from helexa.site.layout import DataDir

_log = logging.getLogger(__name__)

CLOSE_WITHIN_S = 7.0
"""A little more than a runtime is given to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How models are run and streams are paced; what the command line does not offer."""

    make_backend: MakeBackend = build_backend
    pace: Pace = field(default_factory=Pace)
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


class Node:
    """A neuron at work for one or more sites, with one pool of slots."""

    def __init__(
        self,
        settings: NeuronSettings,
        applicant: Applicant,
        data: DataDir,
        metrics: Metrics,
        *,
        kinds: tuple[str, ...],
        tuning: Tuning | None = None,
    ) -> None:
        """Build everything; nothing runs before `begin`."""
        tuned = tuning or Tuning()
        self.metrics = metrics
        self._settings = settings
        self._applicant = applicant
        self._data = data
        models_dir = settings.models_dir or data.models
        host = ModelHost(_runtime(settings, models_dir, tuned), kinds=kinds, price=settings.price)
        hardware = HardwareFeed(HardwareMonitor(models_dir))
        self.presence = Presence(
            neuron_id=applicant.neuron_id,
            public_key=applicant.identity.public,
            instance=metrics.instance,
            host=host,
            hardware=hardware,
            price=settings.price,
            operator=settings.operator,
        )
        meters = Meters(metrics)
        meters.watch(host, hardware)
        self._shared = Sharing(
            presence=self.presence,
            identity=applicant.identity,
            meters=meters,
            room=BulkRoom(host.slots, settings.bulk_slots),
            pace=tuned.pace,
            status_interval_s=settings.status_interval_s,
        )
        self._links: dict[str, SiteLink] = {}

    @property
    def links(self) -> Mapping[str, SiteLink]:
        """The sites by name."""
        return self._links

    @property
    def is_connected(self) -> bool:
        """Whether a site can be reached."""
        return any(link.bus.is_connected for link in self._links.values())

    def bus_of(self, site: Site) -> Bus:
        """Return a connection to `site`, to be opened by the caller, and take part over it."""
        applicant = self._applicant
        bus = Bus(
            neuron_connection(site, applicant.neuron_id, applicant.identity, self.presence.instance)
        )
        self._links[site.name] = SiteLink(site.name, bus, self._shared)
        return bus

    def begin(self, run: Run) -> None:
        """Do everything that goes on beside requests, by `run(name, work)`."""
        self.presence.hardware.start()
        host = self.presence.host
        self.presence.hardware.on_sample(host.measure)
        run("probes", host.run())
        for name, link in self._links.items():
            link.start(run)
            interval_s = self._settings.metrics_interval_s
            run(f"metrics-{name}", self.metrics.publish(link.bus, interval_s))

    async def admit(self, site: Site, give_up: Callable[[str], None]) -> None:
        """Keep the neuron let into `site`; `give_up(reason)` when that can never be."""
        link = self._links[site.name]

        def on_enrolled() -> None:
            keep_node_id(self._applicant.neuron_id, self._data)
            link.agent.forget_fence()

        try:
            await keep_admitted(site, link.bus, self._applicant, on_enrolled)
        except (IdentityConflictError, BadRequestError) as error:
            give_up(f"the site {site.name} refuses {self._applicant.neuron_id}: {error.message}")

    async def end(self, grace_s: float) -> None:
        """Finish what was accepted within `grace_s`, stop the models, and say goodbye."""
        links = self._links.values()
        self.presence.is_draining = True
        self.presence.host.notify()
        await asyncio.gather(*(link.executor.finish(grace_s) for link in links))
        # What hangs ends with this process: its guard sees to that.
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self.presence.host.close()
        except TimeoutError:
            _log.warning("models_hang")
        await asyncio.gather(*(link.leave("stopped") for link in links))
        self.presence.hardware.stop()
        _log.info("models_stopped")


def _runtime(settings: NeuronSettings, models_dir: Path, tuned: Tuning) -> Runtime:
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    return Runtime(
        make_backend=tuned.make_backend,
        weights=Weights(models_dir, settings.hub_endpoint, token),
        slots=SlotPool(settings.slots),
        load_timeout_s=settings.backend_load_timeout_s,
        unload_grace_s=settings.unload_grace_s,
        restarts=tuned.restarts,
    )
