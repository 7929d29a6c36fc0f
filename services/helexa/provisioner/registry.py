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
from helexa.protocol.codec import pack, unpack
from helexa.protocol.errors import BadRequestError, ForbiddenError, MalformedError
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.neurons import (
    Acknowledged,
    Departure,
    NeuronDescriptor,
    NeuronStatus,
    Registered,
    Registration,
)
from helexa.protocol.naming import encode_token
from helexa.protocol.reports import ModelReport, NeuronReport, read_report
from helexa.protocol.subjects import Call, subject_of
from helexa.provisioner.announcer import Announcer
from helexa.provisioner.hosts import Host
from helexa.provisioner.identities import Identities

_log = logging.getLogger(__name__)

MISSED_S = 3.0
"""Silence that three missed reports make: one changes nothing, three do."""

StateChange = Callable[[str, ModelReport, str | None], None]
"""Called with the neuron, what it reports of a model, and the state before."""


@dataclass(slots=True)
class _Seen:
    """The last report of a neuron. It is read whole only when somebody looks."""

    report: NeuronReport
    encoded: bytes | None
    """`None`: it has been read whole."""
    at: float
    degraded: bool = False
    gone: bool = False
    _status: NeuronStatus | None = None

    @property
    def status(self) -> NeuronStatus | None:
        """All of the report; `None` if what it says of the hardware makes no sense."""
        if self.encoded is not None:
            encoded, self.encoded = self.encoded, None
            try:
                self._status = unpack(NeuronStatus, encoded)
            except MalformedError as error:
                said = {"neuron": self.report.neuron_id, "error": error.message}
                _log.warning("status_unreadable", extra=said)
        return self._status


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
        self._registered: dict[str, tuple[str, tuple[str, ...]]] = {}
        """What placement depends on of each registration."""
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
        return [host for name in self._names() if (host := self.host(name))]

    @property
    def size(self) -> int:
        """How many neurons are there."""
        now = self._clock()
        return sum(1 for name in self._names() if self._age_s(name, now) <= self._timeout_s)

    def host(self, neuron_id: str) -> Host | None:
        """Return one neuron, if it is there."""
        descriptor = self._descriptor(neuron_id)
        age_s = self._age_s(neuron_id, self._clock())
        if descriptor is None or age_s > self._timeout_s:
            return None
        seen = self._seen.get(neuron_id)
        return Host(descriptor, seen.status if seen else None, age_s, age_s <= MISSED_S)

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
        known = self._descriptor(name)
        await self._bucket.put(name, descriptor)
        if name not in self.mirror.entries:
            # Who was just told that it is known may be asked for before the copy has it.
            self._just_registered[name] = descriptor
        if known is None or known.instance != descriptor.instance:
            _log.info("neuron_registered", extra={"neuron": name, "instance": descriptor.instance})
            self._announcer.say(EventType.NEURON_REGISTERED, neuron_id=name)
        encoded = pack(request.status)
        self.take_report(read_report(encoded), encoded)
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

    def take_report(self, report: NeuronReport, encoded: bytes) -> None:
        """Take what a neuron reports of itself."""
        known = self._seen.get(report.neuron_id)
        same = known is not None and known.report.instance == report.instance
        if known is not None and same and known.report.sequence > report.sequence:
            return
        self._seen[report.neuron_id] = _Seen(report, encoded, self._clock())
        before = {each.model: each.state for each in known.report.models} if known and same else {}
        for model in report.models:
            if before.get(model.model) != model.state:
                for listener in self._state_listeners:
                    listener(report.neuron_id, model, before.get(model.model))
        if known is None or known.gone or _material(known.report) != _material(report):
            self._changed()

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

    def _descriptor(self, neuron_id: str) -> NeuronDescriptor | None:
        entry = self.mirror.entries.get(neuron_id)
        return entry.value if entry else self._just_registered.get(neuron_id)

    def _names(self) -> list[str]:
        """Return who has registered, known to all or only here as yet."""
        entries = self.mirror.entries
        return [*(name for name in self._just_registered if name not in entries), *entries]

    def _age_s(self, neuron_id: str, now: float) -> float:
        seen = self._seen.get(neuron_id)
        return now - (seen.at if seen else self._began)

    def _on_registration(self, neuron_id: str, descriptor: NeuronDescriptor | None) -> None:
        self._just_registered.pop(neuron_id, None)
        if descriptor is None:
            self._seen.pop(neuron_id, None)
            self._registered.pop(neuron_id, None)
            self._changed()
            return
        # Registrations are renewed all the time; what they say seldom changes.
        said = (descriptor.instance, descriptor.backend_kinds)
        if self._registered.get(neuron_id) != said:
            self._registered[neuron_id] = said
            self._changed()

    def _changed(self) -> None:
        for listener in self._change_listeners:
            listener()


def _material(report: NeuronReport) -> object:
    models = [(each.model, each.state, each.servable, each.config_digest) for each in report.models]
    return (report.instance, report.draining, models)


def _refuse_others(call: Call[Any, Any], neuron_id: str) -> None:
    """Refuse what a neuron says of another one; it may publish under its own id only."""
    if SUBJECT.get() != subject_of(call.subject, neuron=encode_token(neuron_id)):
        raise ForbiddenError(f"only {neuron_id!r} itself may say this")
