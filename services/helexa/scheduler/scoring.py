# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which of the neurons that can serve a request should: a sum of reasons, lowest first."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from helexa.protocol.messages.routing import Target
from helexa.scheduler.candidates import Candidate
from helexa.scheduler.feasibility import Workload

LOAD_WEIGHT = 1.0
"""For a full host against an idle one; the measure of all the other weights."""
LATENCY_WEIGHT = 0.25
"""For each time that a replica's first token takes the fastest replica's again."""
LATENCY_MOST = 2.0
ERROR_WEIGHT = 4.0
"""For a replica whose attempts all fail."""
PRICE_WEIGHT = 0.5
"""For each time that a replica costs the cheapest one's price again."""
PRICE_MOST = 1.5
PREFERRED = -1.0
NEAR = 0.1
"""Scores that differ by less are equal: of these, two are drawn and the better one goes first."""
MOST_TARGETS = 4
"""A gateway that was refused by so many asks again."""


class Scale(NamedTuple):
    """What the candidates of one decision are measured against."""

    fastest_s: float | None
    cheapest: int | None
    dearest: int | None


class Terms(NamedTuple):
    """What speaks against a candidate, and for it where it is negative."""

    load: float
    latency: float
    errors: float
    price: float
    hint: float
    affinity: float
    score: float
    """Their sum."""


def rank(
    workload: Workload,
    feasible: Sequence[Candidate],
    bonuses: Mapping[Candidate, float],
    random: Random,
) -> list[Target]:
    """Return the best of `feasible` as targets, best first, each with the reasons for its score.

    Args:
        workload: what is asked for.
        feasible: who can serve it.
        bonuses: what ties the request to some of them.
        random: for a choice among those that are nearly as good as the best one.
    """
    scale = scale_of(feasible)
    preferred = workload.request.hints.prefer_neurons
    scored = []
    for each in feasible:
        hint = PREFERRED if preferred and each.neuron_id in preferred else 0.0
        terms = terms_of(each, scale, hint, -bonuses.get(each, 0.0))
        scored.append((terms.score, each.neuron_id, terms, each))
    scored.sort()
    near = [place for place, each in enumerate(scored) if each[0] - scored[0][0] < NEAR]
    if len(near) > 1:
        # Replicas of the scheduler that all took the best one would send it everything at once.
        one, other = _draw_two(len(near), random)
        first = one if round(scored[one][0], 2) <= round(scored[other][0], 2) else other
        scored.insert(0, scored.pop(first))
    return [
        _target(candidate, terms, workload.now) for _, _, terms, candidate in scored[:MOST_TARGETS]
    ]


def scale_of(candidates: Sequence[Candidate]) -> Scale:
    """Return what `candidates` are measured against."""
    seconds = [each.experience.first_token_s for each in candidates]
    known_s = [each for each in seconds if each is not None]
    asked = [each.price.output_per_million_tokens for each in candidates]
    known_prices = [each for each in asked if each is not None]
    return Scale(
        fastest_s=min(known_s, default=None),
        cheapest=min(known_prices, default=None),
        dearest=max(known_prices, default=None),
    )


def terms_of(candidate: Candidate, scale: Scale, hint: float = 0.0, affinity: float = 0.0) -> Terms:
    """Return what a candidate's score is made of."""
    load = LOAD_WEIGHT * candidate.load
    latency = _latency(candidate, scale)
    errors = ERROR_WEIGHT * candidate.experience.error_rate
    price = _price(candidate.price.output_per_million_tokens, scale)
    score = load + latency + errors + price + hint + affinity
    return Terms(load, latency, errors, price, hint, affinity, score)


def _draw_two(count: int, random: Random) -> tuple[int, int]:
    """Return two different numbers below `count`; `sample` takes several times as long."""
    one, other = int(random.random() * count), int(random.random() * (count - 1))
    return one, other + (other >= one)


def _target(candidate: Candidate, terms: Terms, now: float) -> Target:
    neuron, experience = candidate.neuron, candidate.experience
    reasons: dict[str, float | str] = {
        "load": terms.load,
        "latency": terms.latency,
        "errors": terms.errors,
        "price": terms.price,
        "hint": terms.hint,
        "affinity": terms.affinity,
        "slots_busy": neuron.slots_busy,
        "slots_total": neuron.status.slots_total,
        "error_rate": experience.error_rate,
        "report_age_s": now - neuron.seen_at,
    }
    if experience.first_token_s is not None:
        reasons["first_token_s"] = experience.first_token_s
    return Target(
        neuron_id=candidate.neuron_id, score=terms.score, reasons=reasons, price=candidate.price
    )


def _latency(candidate: Candidate, scale: Scale) -> float:
    seconds = candidate.experience.first_token_s
    if seconds is None or not scale.fastest_s:
        return 0.0
    times_more = seconds / scale.fastest_s - 1
    return min(LATENCY_WEIGHT * times_more, LATENCY_MOST) * candidate.experience.confidence


def _price(price: int | None, scale: Scale) -> float:
    if scale.cheapest is None or scale.dearest is None:
        return 0.0
    # A price that is not set is not free: it counts as the dearest one that is.
    asked = scale.dearest if price is None else price
    if scale.cheapest == 0:
        return 0.0 if asked == 0 else PRICE_MOST
    return min(PRICE_WEIGHT * (asked / scale.cheapest - 1), PRICE_MOST)
