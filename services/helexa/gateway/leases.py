# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Decisions of schedulers that serve more than one request, for a moment.

What a lease risks is small: a neuron that is full, or gone, refuses or does not answer, and then a
scheduler is asked as if there had been no lease.
"""

from collections import deque
from dataclasses import dataclass

from helexa.gateway.order import NO_HINTS
from helexa.gateway.work import Work
from helexa.protocol.messages.models import WorkloadClass
from helexa.protocol.messages.routing import RoutingDecision, Target, UserHints

MOST_TOLD = 1024
"""Uses that one report tells the schedulers, who keep about as many decisions."""
_Key = tuple[str, str, tuple[str, ...], bytes, str]


@dataclass(slots=True)
class _Held:
    decision: RoutingDecision
    ends_at: float
    uses: int
    alike: int
    prompt_tokens: int
    max_tokens: int | None
    turn: int = 0


class Leases:
    """The leases that this gateway holds. Times are those of one monotonic clock."""

    def __init__(self) -> None:
        """Begin without any."""
        self._held: dict[_Key, _Held] = {}
        self._told: deque[tuple[str, str]] = deque(maxlen=MOST_TOLD)

    def keep(self, work: Work, decision: RoutingDecision, now: float) -> None:
        """Keep the lease of the decision on `work`, if it has one."""
        lease = decision.lease
        if lease is None or not _may_share(work):
            return
        self._forget(now)
        key = _key(work, is_any=lease.any_prompt)
        self._held.pop(key, None)
        self._held[key] = _Held(
            decision,
            now + lease.for_s,
            lease.uses,
            min(lease.alike, len(decision.targets)),
            work.order.prompt_tokens,
            work.order.max_tokens,
        )

    def use(self, work: Work, now: float) -> tuple[RoutingDecision, tuple[Target, ...]] | None:
        """Return a decision that serves `work` too, and its targets in the order for it."""
        if not self._held or not _may_share(work):
            return None
        held = self._find(work, now, is_any=True) or self._find(work, now, is_any=False)
        if held is None:
            return None
        held.uses -= 1
        held.turn = (held.turn + 1) % held.alike
        self._told.append((held.decision.decision_id, work.request_id))
        return held.decision, _turned(held.decision.targets, held.turn, held.alike)

    def _find(self, work: Work, now: float, *, is_any: bool) -> _Held | None:
        key = _key(work, is_any=is_any)
        held = self._held.get(key)
        if held is None:
            return None
        if held.uses == 0 or now >= held.ends_at:
            del self._held[key]
            return None
        return held if _fits(work, held) else None

    @property
    def held(self) -> int:
        """How many are kept, some of which may be over."""
        return len(self._held)

    def drop(self, decision: RoutingDecision) -> None:
        """Give up a lease that has turned out to be void."""
        for key in [key for key, held in self._held.items() if held.decision is decision]:
            del self._held[key]

    def _forget(self, now: float) -> None:
        """Drop the leases that are over. All last about as long, so that the oldest ends first."""
        while self._held:
            oldest = next(iter(self._held))
            if self._held[oldest].ends_at > now:
                return
            del self._held[oldest]

    def take_told(self) -> dict[str, tuple[str, ...]]:
        """Return which requests were served under which decision since the last call."""
        told: dict[str, list[str]] = {}
        while self._told:
            decision_id, request_id = self._told.popleft()
            told.setdefault(decision_id, []).append(request_id)
        return {decision_id: tuple(requests) for decision_id, requests in told.items()}


def _may_share(work: Work) -> bool:
    order = work.order
    if order.workload == WorkloadClass.CHAT_BULK:
        return False
    return order.hints is NO_HINTS or order.hints == UserHints(session=order.hints.session)


def _key(work: Work, *, is_any: bool) -> _Key:
    order = work.order
    session = "" if is_any else order.hints.session or ""
    prompt = b"" if is_any else work.prefix_digests or (order.prefix_hash or "").encode()
    return (work.model, order.workload, order.needs, prompt, session)


def _fits(work: Work, held: _Held) -> bool:
    order = work.order
    if order.prompt_tokens > held.prompt_tokens:
        return False
    if order.max_tokens is None or held.max_tokens is None:
        return order.max_tokens is held.max_tokens
    return order.max_tokens <= held.max_tokens


def _turned(targets: tuple[Target, ...], turn: int, alike: int) -> tuple[Target, ...]:
    if alike == 1:
        return targets
    return targets[turn:alike] + targets[:turn] + targets[alike:]
