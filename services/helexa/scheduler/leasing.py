# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a decision may serve more requests than its own: where there is room to be wrong."""

from collections.abc import Sequence

from helexa.protocol.messages.routing import Lease, Target
from helexa.scheduler.feasibility import Workload
from helexa.scheduler.fleet import Candidate
from helexa.scheduler.scoring import NEAR

MOST_USES = 64
SHARE = 4
"""One lease is for at most this part of the free slots: other gateways have leases too."""


def grant(
    workload: Workload, feasible: Sequence[Candidate], targets: Sequence[Target], *, for_s: float
) -> Lease | None:
    """Return the lease of the decision for `targets`, or `None` where it may serve once only.

    Args:
        workload: What was asked.
        feasible: Every neuron that could serve it.
        targets: The best of them, best first.
        for_s: How long leases last; 0: there are none.
    """
    request = workload.request
    if not for_s or request.continues or request.exclude_neurons or request.hints.mode != "single":
        return None
    room = {each.neuron_id: _free(each) for each in feasible}
    alike = _alike(targets)
    uses = min(MOST_USES, sum(room[each.neuron_id] for each in targets[:alike]) // SHARE)
    if uses < 1:
        return None
    return Lease(for_s=for_s, uses=uses, alike=alike, any_prompt=len(feasible) == 1)


def _alike(targets: Sequence[Target]) -> int:
    """Return how many of the first targets score alike; the one drawn first need not be best."""
    best = min(each.score for each in targets)
    near = [each.score - best < NEAR for each in targets]
    return near.index(False) if False in near else len(near)


def _free(candidate: Candidate) -> int:
    status, model = candidate.status, candidate.model
    free = (model.slots_total if model else 0) - candidate.model_slots_busy
    if status.slots_total:
        free = min(free, status.slots_total - candidate.slots_busy)
    return max(0, free)
