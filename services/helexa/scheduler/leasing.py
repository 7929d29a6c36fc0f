# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a decision may serve more requests than its own: where there is room to be wrong."""

from collections.abc import Sequence

from helexa.protocol.messages.routing import Lease, Target
from helexa.scheduler.candidates import Candidate
from helexa.scheduler.decision import Choice
from helexa.scheduler.feasibility import Workload
from helexa.scheduler.scoring import NEAR

MOST_USES = 64
SHARE = 4
"""One lease is for at most this part of the free slots: other gateways have leases too."""


def grant(workload: Workload, choice: Choice, *, for_s: float) -> Lease | None:
    """Return the lease of a decision, or `None` where it may serve once only.

    Args:
        workload: What was asked.
        choice: What was decided.
        for_s: How long leases last; 0: there are none.
    """
    request = workload.request
    if not for_s or request.continues or request.exclude_neurons or request.hints.mode != "single":
        return None
    alike = _alike(choice.targets)
    names = {each.neuron_id for each in choice.targets[:alike]}
    room = sum(_free(each) for each in choice.feasible if each.neuron_id in names)
    uses = min(MOST_USES, room // SHARE)
    if uses < 1:
        return None
    return Lease(for_s=for_s, uses=uses, alike=alike, any_prompt=len(choice.feasible) == 1)


def _alike(targets: Sequence[Target]) -> int:
    """Return how many of the first targets score alike; the one drawn first need not be best."""
    best = min(each.score for each in targets)
    near = [each.score - best < NEAR for each in targets]
    return near.index(False) if False in near else len(near)


def _free(candidate: Candidate) -> int:
    neuron, model = candidate.neuron, candidate.model
    free = (model.slots_total if model else 0) - candidate.model_slots_busy
    if neuron.status.slots_total:
        free = min(free, neuron.status.slots_total - neuron.slots_busy)
    return max(0, free)
