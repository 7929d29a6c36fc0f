# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What `up` and `cortex` have in common: the processes of a site, and where they are written."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helexa.cli.addresses import RunningSite
from helexa.cli.flags import flag_words
from helexa.cli.ports import free_address, local_url
from helexa.cli.probe import READY, until_ready
from helexa.process.settings import SocketAddress
from helexa.process.supervisor import Child

ORCHESTRATION, INFERENCE, INGRESS = range(3)
"""Stages: what serves others starts earlier and stops later."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many processes of each kind run."""

    gateways: int = 1
    schedulers: int = 1
    provisioners: int = 1
    neurons: int = 0


@dataclass(frozen=True, slots=True)
class Roles:
    """Where each role listens; a role without an address is off."""

    gateway: SocketAddress | None = None
    orchestrator: SocketAddress | None = None
    portals: tuple[SocketAddress, ...] = ()
    neuron_ids: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all processes of a site have in common."""

    settings: Mapping[str, object]
    """Settings that each of them gets."""
    awaited: str = READY
    """The path that answers 200 where a process counts as started."""

    def child(
        self, service: str, number: int, stage: int, probe: SocketAddress, **flags: object
    ) -> Child:
        """Return a process of `service` that is asked at `probe` whether it has started.

        The first one is named after the service, others have a number too.
        """
        words = flag_words({**flags, **self.settings})
        return Child(
            name=service if number == 1 else f"{service}-{number}",
            # -P: a folder called helexa where the command is given must not replace the package.
            argv=(sys.executable, "-P", "-m", "helexa.cli", service, *words),
            ready=until_ready(local_url(probe), self.awaited),
            stage=stage,
        )


@dataclass(frozen=True, slots=True)
class Site:
    """The processes of a site and how they are reached."""

    children: tuple[Child, ...]
    file: RunningSite


def plan_site(roles: Roles, file: RunningSite, shared: Shared) -> Site:
    """Return the processes for `roles`, with free ports where a second one needs its own.

    Args:
        roles: What shall run.
        file: What is known already: the name, our process id, the servers.
        shared: What each process gets.
    """
    children: list[Child] = []
    addresses: dict[str, object] = {}
    if roles.orchestrator is not None:
        children += _orchestrators(roles.orchestrator, roles.counts, shared)
        addresses["orchestrator_url"] = local_url(roles.orchestrator)
    neurons = [_NeuronSockets(name, free_address(), free_address()) for name in roles.neuron_ids]
    children += [_neuron(number, each, shared) for number, each in enumerate(neurons, start=1)]
    addresses["neuron_api_urls"] = {each.name: local_url(each.api) for each in neurons}
    addresses["neuron_control_urls"] = {each.name: local_url(each.control) for each in neurons}
    if roles.gateway is not None:
        sockets = _replicas(roles.gateway, roles.counts.gateways)
        children += [
            shared.child("gateway", number, INGRESS, each, socket=each)
            for number, each in enumerate(sockets, start=1)
        ]
        addresses["gateway_urls"] = tuple(map(local_url, sockets))
        addresses["gateway_url"] = local_url(sockets[0])
    if roles.portals:
        first = roles.portals[0]
        children.append(shared.child("portal", 1, INGRESS, first, socket=roles.portals))
        addresses["portal_url"] = local_url(first)
    return Site(tuple(children), file.model_copy(update=addresses))


def neuron_ids(file: Path, host: str, count: int) -> tuple[str, ...]:
    """Return the ids of this machine's `count` neurons: those kept in `file`, and new ones.

    A host's name may change; a neuron's id must not.
    """
    kept = file.read_text(encoding="utf-8").split() if file.exists() else []
    fresh = (name for k in range(1, 2 * (count + len(kept)) + 1) if (name := f"{host}-{k}"))
    for name in fresh:
        if len(kept) >= count:
            break
        if name not in kept:
            kept.append(name)
    file.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return tuple(kept[:count])


@dataclass(frozen=True, slots=True)
class _NeuronSockets:
    name: str
    control: SocketAddress
    api: SocketAddress


def _orchestrators(address: SocketAddress, counts: Counts, shared: Shared) -> list[Child]:
    sockets = _replicas(address, counts.provisioners)
    controls = [free_address() for _ in range(counts.schedulers)]
    return [
        *(
            shared.child("provisioner", number, ORCHESTRATION, each, socket=each)
            for number, each in enumerate(sockets, start=1)
        ),
        *(
            shared.child("scheduler", number, ORCHESTRATION, each, control_socket=each)
            for number, each in enumerate(controls, start=1)
        ),
    ]


def _neuron(number: int, sockets: _NeuronSockets, shared: Shared) -> Child:
    return shared.child(
        "neuron",
        number,
        INFERENCE,
        sockets.control,
        node_id=sockets.name,
        control_socket=sockets.control,
        api_socket=sockets.api,
    )


def _replicas(first: SocketAddress, count: int) -> list[SocketAddress]:
    return [first, *(free_address(first.host) for _ in range(count - 1))]
