# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""From what is asked, and what is known of the neurons, to the targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from helexa.protocol.errors import NoCapacityError
from helexa.protocol.messages.routing import Target
from helexa.scheduler.affinity import Ties, bonuses, ties_of
from helexa.scheduler.candidates import Candidate
from helexa.scheduler.feasibility import RETRY_SOON_S, Verdict, Workload, refusal, split
from helexa.scheduler.fleet import Fleet
from helexa.scheduler.replicas import Replicas
from helexa.scheduler.scoring import rank


@dataclass(frozen=True, slots=True)
class Choice:
    """Who serves a request, best first, and who of those that were looked at can and cannot."""

    targets: list[Target]
    verdicts: list[Verdict]
    feasible: Sequence[Candidate] = ()


def choose(fleet: Fleet, workload: Workload, random: Random, *, by_prefix: bool) -> Choice:
    """Return who serves a request.

    Args:
        fleet: what is known of the neurons.
        workload: what is asked for.
        random: for a choice among equals.
        by_prefix: whether it matters who has read the beginning of the prompt before.

    Raises:
        HelexaError: nobody can; it says whether waiting helps.
    """
    fleet.forget_silent(workload.now)
    replicas = fleet.replicas(workload.config.model)
    ties = ties_of(workload.request, by_prefix=by_prefix)
    if ties.digests:
        ties.read = replicas.readers.find(ties.digests)
    key = ties.home_key()
    homes = replicas.homes(key) if key is not None else ()
    looked_at = _look(replicas, workload, ties, homes, random)
    feasible, verdicts = split(workload, looked_at)
    needed = 2 if workload.request.hints.mode == "replicated" else 1
    if len(feasible) < needed and replicas.are_many:
        feasible, verdicts = split(workload, replicas.all)
    if not feasible:
        raise refusal(workload, replicas.all, verdicts)
    if len(feasible) < needed:
        raise NoCapacityError(
            f"only one host can serve {workload.config.model} now; a replicated request needs two",
            retry_after_s=RETRY_SOON_S,
        )
    given = bonuses(ties, homes, feasible, replicas.crowd(workload)) if homes or ties.read else {}
    return Choice(rank(workload, feasible, given, random), verdicts, feasible)


def _look(
    replicas: Replicas, workload: Workload, ties: Ties, homes: Sequence[Candidate], random: Random
) -> Sequence[Candidate]:
    """Return who is looked at closely: the best ones, and whoever has a tie or is wished for."""
    best = replicas.best(workload, random)
    if not replicas.are_many:
        return best
    wished = map(replicas.get, workload.request.hints.prefer_neurons)
    ready = [each for each in homes if each.standing < 1][:2]
    return list(dict.fromkeys([*best, *ties.read, *ready, *filter(None, wished)]))
