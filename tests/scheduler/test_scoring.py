# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from collections import Counter
from collections.abc import Sequence
from random import SystemRandom

import pytest

from helexa.protocol.messages.routing import UserHints
from helexa.scheduler.affinity import Crowd, bonuses, by_rendezvous, ties_of
from helexa.scheduler.feasibility import Workload
from helexa.scheduler.history import Experience
from helexa.scheduler.scoring import rank

from .test_feasibility import Host, workload


def order(hosts: Sequence[Host], asked: Workload | None = None) -> list[str]:
    candidates = [host.candidate for host in hosts]
    asked = asked or workload()
    ties = ties_of(asked.request, by_prefix=True)
    key = ties.home_key()
    homes = by_rendezvous(key, candidates) if key is not None else []
    given = bonuses(ties, homes, candidates, Crowd.of(candidates))
    return [target.neuron_id for target in rank(asked, candidates, given, SystemRandom())]


def shares(hosts: Sequence[Host], asked: Workload | None = None) -> Counter[str]:
    return Counter(order(hosts, asked)[0] for _ in range(200))


@pytest.mark.accepts("PR-10", "NET-2")
@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (Host("b", model_busy=0), Host("a", model_busy=2)),
        (Host("b", busy=1), Host("a", busy=6)),
        (
            Host("b", experience=Experience(0.1, 0.9)),
            Host("a", experience=Experience(0.3, 0.9)),
        ),
        (Host("b"), Host("a", experience=Experience(error_rate=0.3))),
        (Host("b", price=100), Host("a", price=200)),
        (Host("b", price=100), Host("c", price=None, model_busy=1)),
        (Host("b", price=0), Host("a", price=1)),
    ],
    ids=["model load", "host load", "latency", "errors", "price", "price not set", "free"],
)
def test_each_reason_changes_the_pick(better: Host, worse: Host) -> None:
    assert {order([better, worse])[0] for _ in range(20)} == {better.name}
    assert {order([worse, better])[0] for _ in range(20)} == {better.name}


@pytest.mark.accepts("PR-10")
def test_a_preferred_neuron_is_taken_until_it_is_much_worse() -> None:
    asked = workload(hints=UserHints(prefer_neurons=("a",)))
    assert order([Host("a", model_busy=3), Host("b")], asked) == ["a", "b"]
    failing = Host("a", model_busy=3, experience=Experience(error_rate=0.5))
    assert order([failing, Host("b")], asked) == ["b", "a"]


@pytest.mark.accepts("NET-2")
def test_raising_the_price_or_the_load_flips_the_choice() -> None:
    assert order([Host("cheap", price=10), Host("dear", price=30)])[0] == "cheap"
    assert order([Host("cheap", price=90), Host("dear", price=30)])[0] == "dear"
    assert order([Host("cheap", price=10, model_busy=4), Host("dear", price=15)])[0] == "dear"


def test_a_price_that_is_not_set_is_not_free() -> None:
    unpriced = Host("unpriced", price=None)
    assert order([unpriced, Host("cheap", price=10), Host("dear", price=40)])[0] == "cheap"


def test_near_equals_share_the_work() -> None:
    found = shares([Host("a"), Host("b"), Host("c")])
    assert set(found) == {"a", "b", "c"}
    assert min(found.values()) > 30


def test_one_that_is_clearly_worse_gets_none_of_it() -> None:
    assert set(shares([Host("a"), Host("b"), Host("c", model_busy=2)])) == {"a", "b"}


def test_of_two_drawn_near_equals_the_better_one_is_taken() -> None:
    near = [Host("a", model_busy=0, slots=100), Host("b", model_busy=5, slots=100)]
    assert set(shares(near)) == {"a"}


def test_a_session_stays_on_one_neuron_where_that_costs_nothing() -> None:
    asked = workload(hints=UserHints(session="s-1"))
    hosts = [Host("a"), Host("b"), Host("c")]
    (home,) = shares(hosts, asked)
    taken = [host if host.name != home else Host(home, model_busy=3) for host in hosts]
    assert home not in shares(taken, asked)


def test_sessions_spread_over_the_neurons() -> None:
    hosts = [Host("a"), Host("b"), Host("c")]
    homes = {
        order(hosts, workload(hints=UserHints(session=f"s-{number}")))[0] for number in range(30)
    }
    assert homes == {"a", "b", "c"}


@pytest.mark.accepts("FLOW-2", "NET-2")
def test_every_target_says_in_numbers_why() -> None:
    host = Host("a", model_busy=1, price=5, experience=Experience(0.25, 0.5, 0.1))
    (target,) = rank(workload(), [host.candidate], {}, SystemRandom())
    terms = ("load", "latency", "errors", "price", "hint", "affinity")
    total = sum(float(target.reasons[name]) for name in terms)
    assert total == pytest.approx(target.score)
    assert target.reasons["first_token_s"] == 0.25
    assert target.reasons["error_rate"] == 0.1
    assert target.price.output_per_million_tokens == 5
