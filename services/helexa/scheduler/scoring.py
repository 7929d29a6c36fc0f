# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which of the neurons that can serve a request should: a sum of reasons, lowest first."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from helexa.protocol.messages.models import Price
from helexa.protocol.messages.routing import Target
from helexa.scheduler.feasibility import Workload, price_of
from helexa.scheduler.fleet import Candidate

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
AFFINE = -0.2
"""For the replica that a session, or a prompt's beginning, always goes to."""
NEAR = 0.1
"""Scores that differ by less are equal: of these, two are drawn and the better one goes first."""


MOST_TARGETS = 8
"""A gateway that was refused by so many asks again."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """What the candidates of one decision are measured against."""

    fastest_s: float | None
    cheapest: int | None
    dearest: int | None
    affine: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    candidate: Candidate
    price: Price
    terms: dict[str, float]
    score: float


def rank(workload: Workload, feasible: Sequence[Candidate], random: Random) -> list[Target]:
    """Return the best of `feasible` as targets, best first, each with the reasons for its score."""
    prices = [price_of(workload.config, candidate) for candidate in feasible]
    scale = _scale(workload, feasible, prices)
    scored = [
        _score(workload, candidate, price, scale)
        for candidate, price in zip(feasible, prices, strict=True)
    ]
    scored.sort(key=lambda each: (each.score, each.candidate.neuron_id))
    near = [each for each in scored if each.score - scored[0].score < NEAR]
    if len(near) > 1:
        # Replicas of the scheduler that all took the best one would send it everything at once.
        drawn = random.sample(near, 2)
        first = min(drawn, key=lambda each: round(each.score, 2))
        scored.remove(first)
        scored.insert(0, first)
    return [_target(each) for each in scored[:MOST_TARGETS]]


def _scale(workload: Workload, feasible: Sequence[Candidate], prices: Sequence[Price]) -> _Scale:
    seconds = [each.experience.first_token_s for each in feasible]
    known_s = [each for each in seconds if each is not None]
    asked = [each.output_per_million_tokens for each in prices]
    known_prices = [each for each in asked if each is not None]
    return _Scale(
        fastest_s=min(known_s, default=None),
        cheapest=min(known_prices, default=None),
        dearest=max(known_prices, default=None),
        affine=_affine(workload, feasible),
    )


def _score(workload: Workload, candidate: Candidate, price: Price, scale: _Scale) -> _Scored:
    preferred = candidate.neuron_id in workload.request.hints.prefer_neurons
    terms = {
        "load": LOAD_WEIGHT * _load(candidate),
        "latency": _latency(candidate, scale),
        "errors": ERROR_WEIGHT * candidate.experience.error_rate,
        "price": _price(price.output_per_million_tokens, scale),
        "hint": PREFERRED if preferred else 0.0,
        "affinity": AFFINE if candidate.neuron_id == scale.affine else 0.0,
    }
    return _Scored(candidate, price, terms, sum(terms.values()))


def _target(scored: _Scored) -> Target:
    candidate = scored.candidate
    reasons: dict[str, float | str] = {
        **{name: round(value, 6) for name, value in scored.terms.items()},
        "slots_busy": candidate.slots_busy,
        "slots_total": candidate.status.slots_total,
        "error_rate": round(candidate.experience.error_rate, 4),
        "report_age_s": round(candidate.age_s, 3),
    }
    if candidate.experience.first_token_s is not None:
        reasons["first_token_s"] = round(candidate.experience.first_token_s, 4)
    return Target(
        neuron_id=candidate.neuron_id,
        score=round(scored.score, 6),
        reasons=reasons,
        price=scored.price,
    )


def _load(candidate: Candidate) -> float:
    model = candidate.model
    shares = [
        busy / total
        for busy, total in (
            (candidate.slots_busy, candidate.status.slots_total),
            (candidate.model_slots_busy, model.slots_total if model else 0),
        )
        if total > 0
    ]
    return max(shares, default=0.0)


def _latency(candidate: Candidate, scale: _Scale) -> float:
    seconds = candidate.experience.first_token_s
    if seconds is None or not scale.fastest_s:
        return 0.0
    times_more = seconds / scale.fastest_s - 1
    return min(LATENCY_WEIGHT * times_more, LATENCY_MOST) * candidate.experience.confidence


def _price(price: int | None, scale: _Scale) -> float:
    if scale.cheapest is None or scale.dearest is None:
        return 0.0
    # A price that is not set is not free: it counts as the dearest one that is.
    asked = scale.dearest if price is None else price
    if scale.cheapest == 0:
        return 0.0 if asked == 0 else PRICE_MOST
    return min(PRICE_WEIGHT * (asked / scale.cheapest - 1), PRICE_MOST)


def _affine(workload: Workload, feasible: Sequence[Candidate]) -> str | None:
    """Return the neuron that a session's or prompt's key belongs to (rendezvous hashing)."""
    key = workload.request.hints.session or workload.request.prefix_hash
    if not key:
        return None

    def draw(candidate: Candidate) -> bytes:
        return hashlib.blake2b(f"{key}\0{candidate.neuron_id}".encode(), digest_size=8).digest()

    return max((draw(each), each.neuron_id) for each in feasible)[1]
