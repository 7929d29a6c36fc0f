# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from collections import Counter
from collections.abc import Sequence
from random import SystemRandom

import pytest

from helexa.protocol.codec import pack
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelState, ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.routing import ScheduleRequest, UserHints
from helexa.protocol.prefixes import DIGEST_BYTES, digest_prefixes, join_digests, split_digests
from helexa.protocol.reports import read_report
from helexa.scheduler.affinity import Crowd, by_rendezvous
from helexa.scheduler.candidates import Candidate, key_of
from helexa.scheduler.decision import choose
from helexa.scheduler.feasibility import Workload
from helexa.scheduler.fleet import Fleet
from helexa.scheduler.history import History
from helexa.scheduler.readers import MOST_REPORTED, Readers

from .test_feasibility import Host

M = ModelId("m")
LONG = b"system prompt " * 400


class Site:
    """Neurons that report to any number of schedulers, all of which hear the same."""

    def __init__(self, *names: str, slots: int = 8) -> None:
        self.names = names
        self.slots = slots
        self.busy = Counter[str]()
        self.read: dict[str, bytes] = {}
        self._sequence = 0

    def scheduler(self) -> Fleet:
        """Return what a scheduler knows that starts now and hears one report of each neuron."""
        fleet = Fleet(History(10), forget_after_s=60)
        self._sequence += 1
        for name in self.names:
            model = ModelStatus(
                model=M,
                state=ModelState.LOADED,
                slots_total=self.slots,
                slots_busy=self.busy[name],
                prefix_digests=self.read.get(name, b""),
            )
            status = NeuronStatus(
                neuron_id=name, instance="i", sequence=self._sequence, models=(model,)
            )
            fleet.report(read_report(pack(status)), 0.0)
        return fleet


def asked(prompt: bytes = b"", session: str | None = None) -> Workload:
    request = ScheduleRequest(
        request_id="r",
        model=M,
        workload="ChatInteractive",
        prefix_digests=digest_prefixes(prompt),
        hints=UserHints(session=session),
    )
    return Workload(request, ModelConfig(model=M, backend_kind="any"), 3.0)


def picks(site: Site, what: Workload, *, by_prefix: bool = True, times: int = 20) -> set[str]:
    """Return whom schedulers that have just started would choose."""
    started = site.scheduler(), site.scheduler()
    return {
        choose(started[each % 2], what, SystemRandom(), by_prefix=by_prefix).targets[0].neuron_id
        for each in range(times)
    }


def test_a_prompt_goes_where_its_beginning_was_read() -> None:
    site = Site("a", "b", "c")
    for name in site.names:
        site.read = {name: digest_prefixes(LONG)[-DIGEST_BYTES:]}
        assert picks(site, asked(LONG + b"And now this.")) == {name}


def test_who_has_read_more_of_it_goes_first() -> None:
    site = Site("a", "b", "c")
    whole = digest_prefixes(LONG)
    for more, less in (("a", "b"), ("b", "c"), ("c", "a")):
        site.read = {more: whole[-DIGEST_BYTES:], less: whole[:DIGEST_BYTES]}
        assert picks(site, asked(LONG)) == {more}


def test_all_schedulers_send_a_prompt_that_nobody_has_read_to_the_same_neuron() -> None:
    site = Site("a", "b", "c")
    prompts = [b"%03d" % number + LONG for number in range(30)]
    chosen = [picks(site, asked(prompt)) for prompt in prompts]
    assert all(len(each) == 1 for each in chosen)
    assert set.union(*chosen) == {"a", "b", "c"}


def test_prompts_that_begin_alike_meet_before_anybody_has_read_them() -> None:
    site = Site("a", "b", "c")
    one, other = asked(LONG + b"first question" * 99), asked(LONG + b"second question" * 99)
    assert picks(site, one) == picks(site, other)


def test_what_follows_a_beginning_that_everybody_knows_spreads() -> None:
    site = Site("a", "b", "c")
    site.read = dict.fromkeys(site.names, digest_prefixes(LONG)[:DIGEST_BYTES])
    documents = [asked(LONG[:1000] + b"%03d" % number + LONG * 9) for number in range(30)]
    chosen = [picks(site, each, times=5) for each in documents]
    assert all(len(each) == 1 for each in chosen)
    assert set.union(*chosen) == {"a", "b", "c"}


def test_a_neuron_with_more_than_its_share_gets_no_more_for_what_it_has_read() -> None:
    site = Site("a", "b", "c")
    site.read = {"a": digest_prefixes(LONG)[-DIGEST_BYTES:]}
    site.busy.update(a=3, b=1, c=1)
    assert "a" not in picks(site, asked(LONG))
    site.busy.update(b=1, c=1)
    assert picks(site, asked(LONG)) == {"a"}


def test_what_overflows_goes_to_one_other_neuron() -> None:
    site = Site("a", "b", "c", "d")
    site.read = {"a": digest_prefixes(LONG)[-DIGEST_BYTES:]}
    site.busy.update(a=6, b=1, c=1, d=1)
    assert len(picks(site, asked(LONG))) == 1


def test_a_session_stays_where_it_is_whatever_it_asks() -> None:
    site = Site("a", "b", "c")
    (home,) = picks(site, asked(b"one" * 999, session="s"))
    assert picks(site, asked(b"two" * 999, session="s")) == {home}


def test_without_affinity_the_prompt_does_not_matter_but_the_session_does() -> None:
    site = Site("a", "b", "c")
    site.read = {"a": digest_prefixes(LONG)[-DIGEST_BYTES:]}
    assert picks(site, asked(LONG), by_prefix=False, times=60) == {"a", "b", "c"}
    assert len(picks(site, asked(LONG, session="s"), by_prefix=False)) == 1


def test_a_neuron_that_was_started_anew_has_read_nothing() -> None:
    fleet = Fleet(History(10), forget_after_s=60)
    model = ModelStatus(model=M, state=ModelState.LOADED, prefix_digests=digest_prefixes(LONG))
    before = NeuronStatus(neuron_id="a", instance="i", sequence=9, models=(model,))
    fleet.report(read_report(pack(before)), 0)
    digests = split_digests(digest_prefixes(LONG))
    assert len(fleet.replicas(M).readers.find(digests)) == 1
    after = NeuronStatus(neuron_id="a", instance="j", sequence=1, models=())
    fleet.report(read_report(pack(after)), 0)
    assert fleet.replicas(M).readers.find(digests) == {}


def candidate(name: str) -> Candidate:
    return Host(name).candidate


def test_readers_are_those_of_the_newest_report() -> None:
    readers, one, other = Readers(), candidate("a"), candidate("b")
    digests = range(100, 104)
    readers.report(one, join_digests([digests[1], digests[3]]))
    readers.report(other, join_digests([digests[1]]))
    assert readers.find(digests) == {one: 4, other: 2}
    readers.report(one, join_digests([digests[0]]))
    readers.report(other, b"")
    assert readers.find(digests) == {one: 1}
    assert readers.find(digests[1:]) == {}


def test_a_report_beyond_all_bounds_counts_only_by_its_end() -> None:
    readers, one = Readers(), candidate("a")
    digests = range(MOST_REPORTED + 1)
    readers.report(one, join_digests(digests))
    assert readers.find(digests[:1]) == {}
    assert readers.find(digests[1:2]) == {one: 1}


def homes(names: Sequence[str]) -> list[str]:
    found = [candidate(name) for name in names]
    return [by_rendezvous(key_of(f"key {each}"), found)[0].neuron_id for each in range(3000)]


def test_keys_spread_over_the_neurons_evenly() -> None:
    counts = Counter(homes("abcdef"))
    assert max(counts.values()) < 1.2 * 500
    assert min(counts.values()) > 0.8 * 500


def test_a_neuron_that_goes_takes_only_its_own_keys_along() -> None:
    before, after = homes("abcdef"), homes("abcde")
    moved = {old for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {"f"}


@pytest.mark.parametrize(
    ("busy", "has_room"),
    [
        ((0, 0, 0), True),
        ((1, 0, 0), True),
        ((2, 0, 0), False),
        ((4, 0, 3), False),
        ((3, 3, 3), True),
    ],
)
def test_nobody_gets_much_more_than_a_fair_share(
    busy: tuple[int, int, int], has_room: bool
) -> None:
    found = [Host(name, model_busy=each).candidate for name, each in zip("abc", busy, strict=True)]
    assert Crowd.of(found).has_room(found[0]) is has_room


def test_a_large_host_has_a_large_share() -> None:
    small, large = Host("a", model_busy=2, slots=4), Host("b", model_busy=8, slots=16)
    found = [small.candidate, large.candidate]
    assert [Crowd.of(found).has_room(each) for each in found] == [True, True]
    alike = [Host("a", model_busy=2).candidate, Host("b", model_busy=8, slots=4).candidate]
    assert [Crowd.of(alike).has_room(each) for each in alike] == [True, False]


@pytest.mark.parametrize("count", [9, 60, 200])
def test_a_large_crowd_is_treated_like_a_small_one(count: int) -> None:
    site = Site(*(f"n{number}" for number in range(count)))
    site.read = {"n5": digest_prefixes(LONG)[-DIGEST_BYTES:]}
    assert picks(site, asked(LONG), times=3) == {"n5"}
    unread = [picks(site, asked(b"%03d" % each + LONG), times=3) for each in range(30)]
    assert all(len(each) == 1 for each in unread)
    assert len(set.union(*unread)) > 6
    site.busy.update({name: 4 for name in site.names if name != "n7"})
    assert picks(site, asked(), times=3) == {"n7"}
    site.busy.update({name: 99 for name in site.names if name != "n8"})
    assert picks(site, asked(LONG), times=3) == {"n8"}
