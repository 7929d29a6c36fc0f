# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who should get a prompt for what it has read before, and who for what nobody has read yet.

Every replica of the scheduler comes to the same answer: it follows from the request and from what
neurons report, and from nothing that a replica remembers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from helexa.protocol.messages.routing import ScheduleRequest
from helexa.protocol.prefixes import DIGEST_BYTES, LENGTHS, split_digests
from helexa.scheduler.candidates import Candidate, key_of

READ_WEIGHT = 1.0
"""For a replica that has read all of a prompt that is so long that only reading it counts; as much
as a full host is worse than an idle one."""
ANSWER_BYTES = 2048
"""An answer costs about as much as reading a prompt of this length."""
HOME_WEIGHT = 0.2
"""For the replica that a session, or a prompt that nobody has read, always goes to."""
MOST_LOAD = 1.25
"""A replica that would have more than this many times its share of all requests gets no bonus."""
NO_CROWD = 2
NO_CROWD_PART = 4
"""So many requests are never too many, nor is this part of a replica's slots: where there is little
to do, shares are small, and a report of one that has just ended may be on its way."""
_SPREAD = 0x9E3779B97F4A7C15
_64_BITS = (1 << 64) - 1


class Crowd(NamedTuple):
    """The replicas of a model together."""

    replicas: int = 0
    slots_busy: int = 0
    slots_total: int = 0

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> "Crowd":
        """Return the crowd of `candidates`."""
        count = busy = total = 0
        for each in candidates:
            count += 1
            busy += each.model_slots_busy
            total += each.model.slots_total if each.model else 0
        return cls(count, busy, total)

    def has_room(self, candidate: Candidate) -> bool:
        """Whether `candidate` may have one more without far more than its share of all requests.

        Source: https://arxiv.org/abs/1608.01350, consistent hashing with bounded loads.
        """
        slots = candidate.model.slots_total if candidate.model else 0
        part = slots / self.slots_total if slots and self.slots_total else 1 / max(1, self.replicas)
        bound = math.ceil(MOST_LOAD * part * (self.slots_busy + 1))
        return candidate.model_slots_busy < max(bound, NO_CROWD, slots // NO_CROWD_PART)


@dataclass(slots=True)
class Ties:
    """What ties a request to replicas."""

    session: str | None = None
    digests: Sequence[int] = ()
    """Of the prompt's prefixes, the shortest first."""
    prefix_hash: str | None = None
    """What stands for a prompt that is too short for digests."""
    read: Mapping[Candidate, int] = field(default_factory=dict)
    """How many of the prefixes a replica has read."""

    def home_key(self) -> int | None:
        """Return what decides on the home: the session, or the first prefix that nobody has read.

        Not the whole prompt: so the first requests of many that begin alike meet at one replica,
        and what differs after a beginning that is known everywhere goes everywhere.
        """
        if self.digests and not self.session:
            longest = max(self.read.values(), default=0)
            return self.digests[min(longest, len(self.digests) - 1)]
        name = self.session or self.prefix_hash
        return key_of(name) if name else None


def ties_of(request: ScheduleRequest, *, by_prefix: bool) -> Ties:
    """Return what ties a request; `read` is left to whoever knows the readers."""
    if not by_prefix:
        return Ties(request.hints.session)
    digests = split_digests(request.prefix_digests[: DIGEST_BYTES * len(LENGTHS)])
    return Ties(request.hints.session, digests, request.prefix_hash)


def by_rendezvous(key: int, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return `candidates` in the order in which `key` belongs to them (rendezvous hashing)."""
    drawn = [(((each.place ^ key) * _SPREAD) & _64_BITS, each.place, each) for each in candidates]
    drawn.sort()
    return [each for _, _, each in drawn]


def bonuses(
    ties: Ties, homes: Sequence[Candidate], feasible: Iterable[Candidate], crowd: Crowd
) -> dict[Candidate, float]:
    """Return by how much ties better the score of each replica that has any.

    Args:
        ties: of the request.
        homes: whom it belongs to, the first one first.
        feasible: who can serve it.
        crowd: all replicas of the model.
    """
    whole = LENGTHS[len(ties.digests) - 1] if ties.digests else 0
    given: dict[Candidate, float] = {}
    most = 0.0
    able = set(feasible)
    for candidate, depth in ties.read.items():
        if candidate in able and crowd.has_room(candidate):
            saved = LENGTHS[depth - 1] / (whole + ANSWER_BYTES)
            given[candidate] = READ_WEIGHT * saved
            most = max(most, LENGTHS[depth - 1] / whole)
    home = next((each for each in homes if each in able and crowd.has_room(each)), None)
    if home is not None:
        weight = 1.0 if ties.session else 1.0 - most
        given[home] = given.get(home, 0.0) + HOME_WEIGHT * weight
    return given
