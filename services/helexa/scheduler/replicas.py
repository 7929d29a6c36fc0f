# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""All neurons that know one model, and the few of them that a decision looks at closely."""

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from random import Random

from helexa.protocol.messages.models import ModelState
from helexa.scheduler.affinity import Crowd, by_rendezvous
from helexa.scheduler.candidates import NEVER, Candidate
from helexa.scheduler.feasibility import Workload, price_of
from helexa.scheduler.history import History
from helexa.scheduler.readers import Readers
from helexa.scheduler.scoring import scale_of, terms_of

MOST_COMPARED = 8
"""Where there are more candidates, those with the best standing are compared."""
MOST_HOMES = 8
"""Where there are more candidates, so many could be the home of a prompt."""
WEIGHED_FOR_S = 0.25
"""How long a standing may keep what was known of latencies, errors and prices."""
_STANDING = attrgetter("standing")


class Replicas:
    """The candidates for one model."""

    def __init__(self, history: History) -> None:
        """Know nobody yet."""
        self.readers = Readers()
        self._history = history
        self._by_neuron: dict[str, Candidate] = {}
        self._all: list[Candidate] = []
        """In the order of their places."""
        self._places: list[int] = []
        self._crowd = Crowd()
        self._weighed_at = NEVER

    @property
    def all(self) -> Sequence[Candidate]:
        """Every one."""
        return self._all

    @property
    def are_many(self) -> bool:
        """Whether they are more than one decision compares."""
        return len(self._all) > MOST_COMPARED

    def get(self, neuron_id: str) -> Candidate | None:
        """Return the candidate of one neuron."""
        return self._by_neuron.get(neuron_id)

    def add(self, candidate: Candidate) -> None:
        """Take in a neuron that knows the model."""
        self._by_neuron[candidate.neuron_id] = candidate
        self._list_anew()

    def remove(self, candidate: Candidate) -> None:
        """Forget a neuron."""
        self.readers.report(candidate, b"")
        del self._by_neuron[candidate.neuron_id]
        self._list_anew()

    def best(self, workload: Workload, random: Random) -> Sequence[Candidate]:
        """Return those with the best standing; all, where they are not many."""
        if not self.are_many:
            for each in self._all:
                self._refresh(each, workload)
            return self._all
        self._weigh_in_time(workload)
        # Of equals the first ones are taken; they must not be the same for all schedulers.
        begin = random.randrange(len(self._all))
        turned = self._all[begin:] + self._all[:begin]
        return heapq.nsmallest(MOST_COMPARED, turned, key=_STANDING)

    def homes(self, key: int) -> Sequence[Candidate]:
        """Return whom `key` belongs to, the first one first.

        Where they are many, only those are drawn for that come next on a circle: so the cost does
        not grow with their number, and one that comes or goes moves only its neighbours' prompts.
        """
        if not self.are_many:
            return by_rendezvous(key, self._all)
        at = bisect_left(self._places, key)
        next_ones = (self._all + self._all)[at : at + MOST_HOMES]
        return by_rendezvous(key, next_ones)

    def crowd(self, workload: Workload) -> Crowd:
        """Return how busy they are together; where they are many, as it was a moment ago."""
        if not self.are_many:
            return Crowd.of(self._loaded(workload))
        self._weigh_in_time(workload)
        return self._crowd

    def _list_anew(self) -> None:
        self._all = sorted(self._by_neuron.values(), key=attrgetter("place"))
        self._places = [each.place for each in self._all]
        self._weighed_at = NEVER

    def _refresh(self, candidate: Candidate, workload: Workload) -> None:
        if workload.now - candidate.looked_up_at > WEIGHED_FOR_S:
            model = str(workload.config.model)
            candidate.experience = self._history.of(candidate.neuron_id, model, workload.now)
            candidate.price = price_of(workload.config, candidate)
            candidate.looked_up_at = workload.now

    def _loaded(self, workload: Workload) -> list[Candidate]:
        oldest = workload.now - workload.stale_after_s
        return [
            each
            for each in self._all
            if each.model is not None
            and each.model.state == ModelState.LOADED
            and each.neuron.seen_at >= oldest
        ]

    def _weigh_in_time(self, workload: Workload) -> None:
        if workload.now - self._weighed_at <= WEIGHED_FOR_S:
            return
        self._weighed_at = workload.now
        loaded = self._loaded(workload)
        for each in loaded:
            self._refresh(each, workload)
        scale = scale_of(loaded)
        self._crowd = Crowd.of(loaded)
        for each in self._all:
            each.standing = float("inf")
        for each in loaded:
            terms = terms_of(each, scale)
            each.handicap = terms.score - terms.load
            each.stand()
