# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest

from helexa.provisioner.backoff import Backoff
from helexa.provisioner.demand import FRESH_S, Demand


@pytest.mark.accepts("FLOW-8")
def test_each_failure_doubles_the_wait_up_to_a_bound() -> None:
    backoff = Backoff(first_s=5, most_s=30)
    waits = [backoff.fail("n", "m", "broken", now=100).until - 100 for _ in range(5)]
    assert waits == [5, 10, 20, 30, 30]


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(first_s=5, most_s=30)
    for _ in range(5000):
        backoff.fail("n", "m", "broken", now=0)
    assert backoff.fail("n", "m", "broken", now=0).until == 30


def test_one_neurons_failures_do_not_silence_the_others() -> None:
    backoff = Backoff()
    backoff.fail("n", "m", "broken", now=0)
    assert backoff.of("n", "m") is not None
    assert backoff.of("other", "m") is None
    assert backoff.of("n", "other") is None


def test_a_success_ends_the_row() -> None:
    backoff = Backoff(first_s=5)
    backoff.fail("n", "m", "broken", now=0)
    backoff.fail("n", "m", "broken", now=0)
    backoff.succeed("n", "m")
    assert backoff.fail("n", "m", "broken", now=0).until == 5


def test_a_changed_model_starts_anew_everywhere() -> None:
    backoff = Backoff()
    backoff.fail("n", "m", "broken", now=0)
    backoff.fail("o", "m", "broken", now=0)
    backoff.fail("o", "x", "broken", now=0)
    backoff.forget_model("m")
    assert [backoff.of(*key) is None for key in (("n", "m"), ("o", "m"), ("o", "x"))] == [
        True,
        True,
        False,
    ]


def test_demand_ends_when_nobody_repeats_it() -> None:
    demand = Demand()
    demand.note("m", 3, now=0)
    assert demand.waiting("m", FRESH_S) == 3
    assert demand.waiting("m", FRESH_S + 1) == 0
    assert demand.count("m") == 1


def test_demand_ends_when_the_model_has_room() -> None:
    demand = Demand()
    demand.note("m", 3, now=0)
    demand.settle("m")
    assert demand.waiting("m", 0) == 0
    assert demand.last_at("m") == 0
