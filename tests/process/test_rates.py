# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import random

import pytest

from helexa.process.rates import LOOKED_THROUGH, NEVER_S, Allowances, Rate, rate_of


def test_a_full_allowance_lets_its_capacity_through_and_then_its_rate() -> None:
    rate, allowances = rate_of(60, 60.0), Allowances()
    found = allowances.of("a", rate, 0.0)
    for _ in range(60):
        assert found.wait_s(1) == 0
        found.use(1)
    assert found.wait_s(1) == pytest.approx(1.0)
    assert found.full_in_s() == pytest.approx(60.0)
    assert allowances.of("a", rate, 1.0).wait_s(1) == pytest.approx(0.0)
    assert allowances.of("b", rate, 1.0).wait_s(60) == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_time_sees_more_than_the_stated_bound(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same each time
    limit, parts = chance.randint(1, 200), chance.randint(1, 8)
    rate, many = rate_of(limit, 60.0, parts), [Allowances() for _ in range(parts)]
    passed: list[float] = []
    now_s = 0.0
    for _ in range(2000):
        now_s += chance.expovariate(8 * limit / 60)
        found = chance.choice(many).of("key", rate, now_s)
        if found.wait_s(1) == 0:
            found.use(1)
            passed.append(now_s)
    holds = max(limit, parts)
    for first, began_s in enumerate(passed):
        for last in range(first, len(passed)):
            span_s = passed[last] - began_s
            assert last - first + 1 <= holds + limit * span_s / 60 + 1e-6
            if span_s > 120:
                break


def test_what_is_larger_than_it_holds_passes_when_it_is_full_and_is_paid_for_after() -> None:
    rate, allowances = Rate(10, 1.0), Allowances()
    found = allowances.of("a", rate, 0.0)
    assert found.wait_s(25) == 0
    found.use(25)
    assert found.wait_s(1) == pytest.approx(16.0)
    found.use(-20)
    assert found.wait_s(1) == 0


def test_a_limit_of_nothing_lets_one_through_and_then_none() -> None:
    found = Allowances().of("a", rate_of(0, 60.0), 0.0)
    found.use(1)
    assert found.wait_s(1) == NEVER_S


def test_a_lower_rate_takes_away_what_it_cannot_hold_and_a_higher_one_gives_nothing() -> None:
    allowances = Allowances()
    assert allowances.of("a", Rate(100, 1.0), 0.0).level == 100
    assert allowances.of("a", Rate(50, 1.0), 0.0).level == 50
    assert allowances.of("a", Rate(100, 1.0), 0.0).level == 50


def test_names_that_have_all_they_may_have_are_forgotten() -> None:
    rate, allowances = Rate(1, 1.0), Allowances()
    for number in range(LOOKED_THROUGH):
        allowances.of(str(number), rate, 0.0).use(1)
    assert len(allowances) == LOOKED_THROUGH
    allowances.of("0", rate, 5.0).use(1)
    allowances.of("new", rate, 5.0)
    assert len(allowances) == 2
