# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Decides where models shall be. Pure: state in, plans out; times are spans, not clocks.

First every model keeps what it has and may keep. Then models get what they lack, the important and
the waited-for first: on a host with free room where there is one, else by displacing what matters
less.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from helexa.provisioner.hosts import Host, Plan, Wish, reports_of
from helexa.provisioner.memory import Room, room_of, shown, size_of


@dataclass(frozen=True, slots=True)
class _Fit:
    """One way to place a model on one host."""

    host: Host
    victims: tuple[str, ...]
    """Models that have to go."""
    order: tuple[float, ...]
    """Lower is better."""


def plan_all(wishes: Sequence[Wish], hosts: Sequence[Host]) -> dict[str, Plan]:
    """Return a plan for each model."""
    return _Board(wishes, hosts).solve()


class _Board:
    """The state of one solution: plans that change while models are placed."""

    def __init__(self, wishes: Sequence[Wish], hosts: Sequence[Host]) -> None:
        self._hosts = {host.neuron_id: host for host in hosts}
        self._wishes = {wish.model: wish for wish in wishes}
        self._ranks = {wish.model: rank for rank, wish in enumerate(wishes)}
        reported = reports_of(hosts)
        self._sizes = {
            wish.model: size_of(wish.config, reported.get(wish.model, ())) for wish in wishes
        }
        self._plans = {wish.model: self._kept(wish) for wish in wishes}
        self._placed: defaultdict[str, set[str]] = defaultdict(set)
        """The models that have a place on each host."""
        self._rooms: dict[str, Room] = {}
        """What is left on hosts, as long as nothing there has changed."""
        for plan in self._plans.values():
            for name in plan.neurons:
                self._placed[name].add(plan.model)

    def solve(self) -> dict[str, Plan]:
        order = sorted(
            self._wishes.values(),
            key=lambda wish: (-wish.config.policy.priority, not wish.waiting, wish.model),
        )
        for wish in order:
            self._place_asked(wish)
            self._fill(wish)
        for wish in order:
            self._spread(wish)
        return self._plans

    def _kept(self, wish: Wish) -> Plan:
        size = self._sizes[wish.model]
        needs = f"{shown(size.memory_bytes + size.gpu_bytes)} ({size.known_by})"
        plan = Plan(wish.model, [], needs=needs)
        for name in wish.current:
            reason = self._why_leave(wish, name)
            if reason is None:
                plan.neurons.append(name)
            else:
                plan.reasons.append(f"leaves {name}: {reason}")
        self._trim(wish, plan)
        return plan

    def _why_leave(self, wish: Wish, name: str) -> str | None:
        host = self._hosts.get(name)
        if wish.stopped:
            return "unloaded by the operator"
        if host is None:
            return "the neuron is gone"
        if host.draining:
            return "the neuron is draining"
        if name in wish.blocked and not host.has_loaded(wish.model):
            return f"it failed there: {wish.failures[name].reason}"
        return _excluded(wish, host)

    def _trim(self, wish: Wish, plan: Plan) -> None:
        policy = wish.config.policy
        by_use = sorted(plan.neurons, key=lambda name: -self._idle_s(wish, name))
        while policy.max_replicas is not None and len(plan.neurons) > policy.max_replicas:
            name = by_use.pop(0)
            plan.neurons.remove(name)
            plan.reasons.append(f"leaves {name}: at most {policy.max_replicas} replicas")
        limit = policy.idle_unload_s
        if limit is None or policy.on_every_neuron or not wish.may_change:
            return
        for name in by_use:
            idle_s = self._idle_s(wish, name)
            if len(plan.neurons) <= wish.minimum or idle_s < limit:
                break
            plan.neurons.remove(name)
            plan.reasons.append(f"leaves {name}: idle for {idle_s:.0f} s")

    def _idle_s(self, wish: Wish, name: str) -> float:
        found = self._hosts[name].model(wish.model)
        return found.idle_s if found and not found.slots_busy else 0.0

    def _place_asked(self, wish: Wish) -> None:
        plan = self._plans[wish.model]
        for name in wish.asked_neurons:
            host = self._hosts.get(name)
            if host is None or wish.stopped or name in plan.neurons:
                continue
            fit = self._fit(wish, host, plan, may_displace=True)
            if fit is not None:
                self._take(wish, plan, fit, "asked for by the operator")

    def _fill(self, wish: Wish) -> None:
        """Bring a model to the least number of replicas, displacing others if need be."""
        plan = self._plans[wish.model]
        plan.wanted = self._bounded(wish, wish.minimum)
        for fit in self._best(wish, plan, plan.wanted, may_displace=True):
            reason = (
                f"{wish.waiting} requests wait"
                if wish.waiting
                else f"{plan.wanted} of it wanted, {len(plan.neurons)} there"
            )
            self._take(wish, plan, fit, reason)

    def _spread(self, wish: Wish) -> None:
        """Add replicas that are wanted, but not at the cost of others."""
        plan = self._plans[wish.model]
        if wish.stopped:
            return
        wanted, reason = self._ambition(wish, plan)
        plan.wanted = max(plan.wanted, wanted)
        for fit in self._best(wish, plan, wanted, may_displace=False):
            self._take(wish, plan, fit, reason)

    def _ambition(self, wish: Wish, plan: Plan) -> tuple[int, str]:
        policy = wish.config.policy
        if policy.on_every_neuron:
            return self._bounded(wish, len(self._hosts)), "wanted on every neuron"
        replicas = [self._hosts[name].model(wish.model) for name in plan.neurons]
        slots = [(each.slots_total, each.slots_busy) for each in replicas if each]
        full = bool(slots) and all(total and busy >= total for total, busy in slots)
        if full and wish.waiting and wish.may_change:
            # Planned in one step: growing one by one would let the line wait for each.
            more = math.ceil(wish.waiting / max(total for total, _ in slots))
            wanted = self._bounded(wish, len(plan.neurons) + more)
            return wanted, f"all replicas are full and {wish.waiting} requests wait"
        return 0, ""

    def _bounded(self, wish: Wish, wanted: int) -> int:
        most = wish.config.policy.max_replicas
        return wanted if most is None else min(wanted, most)

    def _best(self, wish: Wish, plan: Plan, wanted: int, *, may_displace: bool) -> list[_Fit]:
        """Return how to come to so many replicas, as far as that goes, the best way first.

        All at once: what is taken on one host changes nothing on another.
        """
        lacking = wanted - len(plan.neurons)
        if lacking <= 0:
            return []
        there = set(plan.neurons)
        fits = [
            fit
            for host in self._hosts.values()
            if host.neuron_id not in there
            and (fit := self._fit(wish, host, plan, may_displace=may_displace))
        ]
        return sorted(fits, key=lambda fit: (fit.order, fit.host.neuron_id))[:lacking]

    def _fit(self, wish: Wish, host: Host, plan: Plan, *, may_displace: bool) -> _Fit | None:
        """Return how `wish` fits on `host`, or note in `plan` why it does not."""
        name = host.neuron_id
        plan.rejected.pop(name, None)
        plan.lasting.discard(name)
        size = self._sizes[wish.model]
        never = _excluded(wish, host) or self._whole(host).never_holds(size)
        if never is not None:
            plan.rejected[name] = never
            plan.lasting.add(name)
            return None
        later = _not_now(wish, host)
        if later is not None:
            plan.rejected[name] = later
            return None
        failures = wish.failures[name].count if name in wish.failures else 0
        room = self._room(host)
        lack = room.lacks(size)
        if lack is None:
            free = room.gpu_free if size.on(room).gpu_bytes else room.memory_free
            return _Fit(host, (), (0 if host.has_loaded(wish.model) else 1, failures, -free))
        victims = self._victims(wish, host, room) if may_displace else None
        if victims is None:
            plan.rejected[name] = lack
            return None
        rank = max(self._wishes[model].config.policy.priority for model in victims)
        return _Fit(host, victims, (2, failures, rank, len(victims)))

    def _take(self, wish: Wish, plan: Plan, fit: _Fit, reason: str) -> None:
        name = fit.host.neuron_id
        self._rooms.pop(name, None)
        self._placed[name].add(wish.model)
        for model in fit.victims:
            self._placed[name].discard(model)
            displaced = self._plans[model]
            displaced.neurons.remove(name)
            displaced.reasons.append(f"leaves {name}: makes room for {wish.model}")
        gone = f", displacing {', '.join(fit.victims)}" if fit.victims else ""
        plan.neurons.append(name)
        plan.reasons.append(f"goes to {name}{gone}: {reason}")
        plan.rejected.pop(name, None)

    def _victims(self, wish: Wish, host: Host, room: Room) -> tuple[str, ...] | None:
        """Return the fewest models whose leaving makes room, the least important first."""
        there = (self._wishes[model] for model in self._placed[host.neuron_id])
        candidates = sorted(
            (other for other in there if self._may_displace(wish, other, host)),
            key=lambda other: (
                other.config.policy.priority,
                -self._idle_s(other, host.neuron_id),
                self._ranks[other.model],
            ),
        )
        victims: list[str] = []
        for other in candidates:
            room = room.plus(self._sizes[other.model])
            victims.append(other.model)
            if room.lacks(self._sizes[wish.model]) is None:
                return tuple(victims)
        return None

    def _may_displace(self, wish: Wish, other: Wish, host: Host) -> bool:
        mine, theirs = wish.config.policy.priority, other.config.policy.priority
        if other.model == wish.model or theirs > mine:
            return False
        if theirs < mine:
            return True
        # Equals: only for somebody who waits, and only what nobody has used for a while. Without
        # that two models that want the same place would take turns for ever.
        idle_s = self._idle_s(other, host.neuron_id)
        unused = idle_s >= other.config.policy.cool_down_s and other.may_change
        return bool(wish.waiting) and unused and not (other.waiting or other.asked_neurons)

    def _whole(self, host: Host) -> Room:
        hardware = host.status.hardware if host.status else host.descriptor.hardware
        return room_of(hardware, ())

    def _room(self, host: Host) -> Room:
        """Return what is left on `host` beside what runs there and what is about to."""
        known = self._rooms.get(host.neuron_id)
        if known is None:
            known = self._rooms[host.neuron_id] = self._count_room(host)
        return known

    def _count_room(self, host: Host) -> Room:
        hardware = host.status.hardware if host.status else host.descriptor.hardware
        placed = self._placed[host.neuron_id]
        loaded = {model for model in host.models if model in self._sizes and host.has_loaded(model)}
        room = room_of(hardware, [self._sizes[model] for model in loaded])
        for model in placed - loaded:
            room = room.less(self._sizes[model])
        for model in loaded - placed:
            # What has no place here any more still fills its memory.
            room = room.plus(self._sizes[model])
        return room


def _excluded(wish: Wish, host: Host) -> str | None:
    """Return why policy or kind keeps a model off a host for good."""
    pins = wish.config.policy.pinned_neurons
    if pins and host.neuron_id not in pins:
        return "the model is pinned to other neurons"
    kinds = host.descriptor.backend_kinds
    if kinds and wish.config.backend_kind not in kinds:
        return f"cannot run {wish.config.backend_kind!r}, only {', '.join(kinds)}"
    return None


def _not_now(wish: Wish, host: Host) -> str | None:
    if host.status is None:
        return "has not reported yet"
    if not host.steady:
        return f"silent for {host.age_s:.1f} s"
    if host.draining:
        return "draining"
    if host.neuron_id in wish.blocked and not host.has_loaded(wish.model):
        return f"failed there lately: {wish.failures[host.neuron_id].reason}"
    return None
