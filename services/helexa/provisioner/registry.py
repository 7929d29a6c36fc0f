# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neurons of the site: who has registered, and what they report."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from helexa.bus.buckets import Bucket, Mirror
from helexa.bus.client import Bus
from helexa.bus.context import SUBJECT
from helexa.protocol import resources, subjects
from helexa.protocol.codec import unpack
from helexa.protocol.errors import BadRequestError, ForbiddenError, MalformedError
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.models import ModelStatus
from helexa.protocol.messages.neurons import (
    Acknowledged,
    Departure,
    NeuronDescriptor,
    NeuronStatus,
    Registered,
    Registration,
)
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import Call, subject_of
from helexa.provisioner.announcer import Announcer
from helexa.provisioner.hosts import Host
from helexa.provisioner.identities import Identities

_log = logging.getLogger(__name__)

MISSED_S = 3.0
"""Silence that three missed reports make: one changes nothing, three do."""

StateChange = Callable[[str, ModelStatus, str | None], None]
"""Called with the neuron, what it reports of a model, and the state before."""


@dataclass(slots=True)
class _Seen:
    status: NeuronStatus
    at: float
    degraded: bool = False
    gone: bool = False


class Registry:
    """The registrations, shared through a bucket, and the reports, heard by every replica."""

    def __init__(
        self,
        bus: Bus,
        identities: Identities,
        announcer: Announcer,
        *,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Drop neurons that are silent for `timeout_s`."""
        self._bucket = Bucket(bus, resources.NEURONS, NeuronDescriptor)
        self.mirror = Mirror(self._bucket)
        self._identities = identities
        self._announcer = announcer
        self._timeout_s = timeout_s
        self._clock = clock
        self._began = clock()
        self._seen: dict[str, _Seen] = {}
        self._just_registered: dict[str, NeuronDescriptor] = {}
        self._state_listeners: list[StateChange] = []
        self._change_listeners: list[Callable[[], None]] = []
        self.mirror.on_change(self._on_registration)

    def on_state(self, listener: StateChange) -> None:
        """Call `listener` when a model's state on a neuron has changed."""
        self._state_listeners.append(listener)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when something has changed that placement depends on."""
        self._change_listeners.append(listener)

    def hosts(self) -> list[Host]:
        """Return the neurons that are there."""
        now = self._clock()
        found = []
        for name, descriptor in {**self._just_registered, **self.mirror.values}.items():
            seen = self._seen.get(name)
            age_s = now - (seen.at if seen else self._began)
            if age_s <= self._timeout_s:
                status = seen.status if seen else None
                found.append(Host(descriptor, status, age_s, age_s <= MISSED_S))
        return found

    def host(self, neuron_id: str) -> Host | None:
        """Return one neuron, if it is there."""
        return next((host for host in self.hosts() if host.neuron_id == neuron_id), None)

    async def register(self, request: Registration) -> Registered:
        """Know a neuron, or know it anew.

        Raises:
            BadRequestError: the registration speaks of two neurons.
            ForbiddenError: it speaks of another neuron than its sender.
            IdentityConflictError: the id belongs to another key.
            UnavailableError: the bucket cannot be reached.
        """
        descriptor = request.descriptor
        name = descriptor.neuron_id
        if request.status.neuron_id != name:
            raise BadRequestError("the registration and its status name different neurons")
        _refuse_others(subjects.REGISTER, name)
        if descriptor.public_key:
            await self._identities.bind(name, descriptor.public_key)
        else:
            await self._identities.check(name, "")
        known = await self._bucket.get(name)
        await self._bucket.put(name, descriptor)
        if name not in self.mirror.entries:
            # Who was just told that it is known may be asked for before the copy has it.
            self._just_registered[name] = descriptor
        if known is None or known.value.instance != descriptor.instance:
            _log.info("neuron_registered", extra={"neuron": name, "instance": descriptor.instance})
            self._announcer.say(EventType.NEURON_REGISTERED, neuron_id=name)
        self._take(request.status)
        return Registered()

    async def depart(self, request: Departure) -> Acknowledged:
        """Forget a neuron that stops, unless it has been started again since.

        Raises:
            ForbiddenError: it speaks of another neuron than its sender.
            UnavailableError: the bucket cannot be reached.
        """
        _refuse_others(subjects.DEPART, request.neuron_id)
        known = await self._bucket.get(request.neuron_id)
        if known is not None and known.value.instance == request.instance:
            await self.remove(request.neuron_id, request.reason or "it has stopped")
        return Acknowledged()

    async def remove(self, neuron_id: str, reason: str) -> None:
        """Forget a neuron."""
        await self._bucket.delete(neuron_id)
        self._seen.pop(neuron_id, None)
        self._just_registered.pop(neuron_id, None)
        _log.info("neuron_removed", extra={"neuron": neuron_id, "reason": reason})
        self._announcer.say(EventType.NEURON_REMOVED, neuron_id=neuron_id, reason=reason)
        self._changed()

    def take_status(self, subject: str, data: bytes) -> None:
        """Take a neuron's report. The server vouches for its subject, not for what it says."""
        try:
            status = unpack(NeuronStatus, data)
        except MalformedError as error:
            _log.warning("event_unreadable", extra={"subject": subject, "error": error.message})
            return
        own = subjects.subject_of(
            subjects.NEURON_STATUS.subject, neuron=encode_token(status.neuron_id)
        )
        if subject == own:
            self._take(status)
        else:
            _log.warning("status_of_another", extra={"subject": subject, "id": status.neuron_id})

    def sweep(self) -> list[tuple[str, str]]:
        """Return the neurons that have fallen silent since the last call, each with an event type.

        The registration of one that is gone stays until it expires, so that it is back as soon as
        it reports.
        """
        now = self._clock()
        found = []
        for name, seen in self._seen.items():
            silent_s = now - seen.at
            if silent_s > self._timeout_s and not seen.gone:
                seen.gone = seen.degraded = True
                found.append((name, EventType.NEURON_REMOVED))
            elif silent_s > MISSED_S and not seen.degraded:
                seen.degraded = True
                found.append((name, EventType.NEURON_DEGRADED))
        return found

    def _take(self, status: NeuronStatus) -> None:
        known = self._seen.get(status.neuron_id)
        same = known is not None and known.status.instance == status.instance
        if known is not None and same and known.status.sequence > status.sequence:
            return
        self._seen[status.neuron_id] = _Seen(status, self._clock())
        before = {each.model: each.state for each in known.status.models} if known and same else {}
        for model in status.models:
            if before.get(model.model) != model.state:
                for listener in self._state_listeners:
                    listener(status.neuron_id, model, before.get(model.model))
        if known is None or known.gone or _material(known.status) != _material(status):
            self._changed()

    def _on_registration(self, neuron_id: str, descriptor: NeuronDescriptor | None) -> None:
        self._just_registered.pop(neuron_id, None)
        if descriptor is None:
            self._seen.pop(neuron_id, None)
        self._changed()

    def _changed(self) -> None:
        for listener in self._change_listeners:
            listener()


def _material(status: NeuronStatus) -> object:
    models = [(each.model, each.state, each.servable, each.config_digest) for each in status.models]
    return (status.instance, status.draining, models)


def _refuse_others(call: Call[Any, Any], neuron_id: str) -> None:
    """Refuse what a neuron says of another one; it may publish under its own id only."""
    if SUBJECT.get() != subject_of(call.subject, neuron=encode_token(neuron_id)):
        raise ForbiddenError(f"only {neuron_id!r} itself may say this")
