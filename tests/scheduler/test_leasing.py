# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from random import SystemRandom

import pytest

from helexa.protocol.messages.routing import Lease, UserHints
from helexa.scheduler.decision import Choice
from helexa.scheduler.feasibility import Workload
from helexa.scheduler.leasing import MOST_USES, grant
from helexa.scheduler.scoring import rank

from .test_feasibility import Host, workload


def lease(*hosts: Host, asked: Workload | None = None, for_s: float = 0.2) -> Lease | None:
    asked = asked or workload()
    feasible = [host.candidate for host in hosts]
    targets = rank(asked, feasible, {}, SystemRandom())
    return grant(asked, Choice(targets, [], feasible), for_s=for_s)


def test_a_lease_is_for_a_part_of_the_free_slots() -> None:
    granted = lease(Host(slots=40, busy=8, model_busy=8))
    assert granted is not None
    assert granted.uses == 8
    assert granted.for_s == 0.2


def test_a_lease_has_a_bound_however_much_room_there_is() -> None:
    granted = lease(Host(slots=4000))
    assert granted is not None
    assert granted.uses == MOST_USES


@pytest.mark.parametrize(
    "host", [Host(slots=3), Host(slots=40, model_busy=38), Host(slots=40, busy=79)]
)
def test_where_room_is_scarce_each_request_needs_a_decision(host: Host) -> None:
    assert lease(host) is None


@pytest.mark.parametrize(
    "asked",
    [workload(exclude=("z",)), workload(hints=UserHints(mode="replicated"))],
    ids=["second attempt", "replicated"],
)
def test_a_request_that_is_unlike_others_gets_no_lease(asked: Workload) -> None:
    assert lease(Host("a", slots=40), Host("b", slots=40), asked=asked) is None


def test_leases_can_be_switched_off() -> None:
    assert lease(Host(slots=40), for_s=0) is None


def test_neurons_that_score_alike_take_turns_and_a_worse_one_does_not() -> None:
    granted = lease(Host("a", slots=40), Host("b", slots=40), Host("c", slots=40, model_busy=20))
    assert granted is not None
    assert granted.alike == 2
    assert not granted.any_prompt


def test_where_one_neuron_serves_the_prompt_makes_no_difference() -> None:
    granted = lease(Host(slots=40))
    assert granted is not None
    assert granted.any_prompt
