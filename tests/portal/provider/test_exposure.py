# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How much a portal may owe."""

import pytest

from helexa.portal.provider.exposure import (
    NO_CREDIT,
    CreditTerms,
    ExposureError,
    Standing,
    cap_of,
    check_room,
)

DAY_MS = 86_400_000
TERMS = CreditTerms(first=100, most=1_000, growth_basis_points=1_000, overdue_ms=DAY_MS)


@pytest.mark.parametrize(
    ("settled", "cap"),
    [(0, 100), (9, 100), (10, 101), (1_000, 200), (9_000, 1_000), (10**9, 1_000)],
)
def test_a_portal_that_pays_is_trusted_with_more_up_to_a_bound(settled: int, cap: int) -> None:
    standing = Standing(earned=settled, settled=settled)
    assert cap_of(TERMS, standing, 0) == cap


@pytest.mark.parametrize(
    ("waits_ms", "cap"),
    [(-5, 100), (0, 100), (DAY_MS - 1, 100), (DAY_MS, 50), (2 * DAY_MS, 25), (999 * DAY_MS, 0)],
)
def test_trust_halves_with_each_time_that_a_claim_is_overdue(waits_ms: int, cap: int) -> None:
    standing = Standing(earned=50, open_since_ms=5)
    assert cap_of(TERMS, standing, 5 + waits_ms) == cap


def test_a_portal_that_has_forked_is_not_served() -> None:
    standing = Standing(earned=5_000, settled=5_000, has_forked=True)
    assert cap_of(TERMS, standing, 0) == 0
    with pytest.raises(ExposureError):
        check_room(TERMS, standing, 1, 0)


def test_work_is_refused_at_the_cap_and_not_before() -> None:
    standing = Standing(earned=60, settled=20, in_flight=40)
    assert standing.exposure == 80
    check_room(TERMS, standing, 22, 0)
    with pytest.raises(ExposureError):
        check_room(TERMS, standing, 23, 0)


def test_there_is_no_credit_in_a_currency_without_terms() -> None:
    with pytest.raises(ExposureError):
        check_room(NO_CREDIT, Standing(), 1, 0)
