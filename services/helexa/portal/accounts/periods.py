# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""When the budget of a key begins anew. Pure; all of it in UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from helexa.protocol.errors import BadRequestError
from helexa.protocol.messages.accounts import BudgetPeriod


@dataclass(frozen=True, slots=True)
class Period:
    """One stretch of time with a budget of its own."""

    name: str
    """As `2026-11`, `2026-W47`, `2026-11-22` or `total`; part of an account's name in the books."""
    begins: datetime | None
    ends: datetime | None
    """The first moment of the next one; `None`: never."""


def period_at(kind: str, now: datetime) -> Period:
    """Return the period of the given `BudgetPeriod` that `now` is in. Weeks begin on Monday.

    Raises:
        BadRequestError: there is no such kind.
    """
    moment = now.astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == BudgetPeriod.DAY:
        return Period(f"{midnight:%Y-%m-%d}", midnight, midnight + timedelta(days=1))
    if kind == BudgetPeriod.WEEK:
        begins = midnight - timedelta(days=midnight.weekday())
        return Period(f"{begins:%G-W%V}", begins, begins + timedelta(weeks=1))
    if kind == BudgetPeriod.MONTH:
        begins = midnight.replace(day=1)
        # The longest month and a bit more after its first day is in the next month.
        return Period(f"{begins:%Y-%m}", begins, (begins + timedelta(days=32)).replace(day=1))
    if kind == BudgetPeriod.TOTAL:
        return Period("total", None, None)
    raise BadRequestError(f"There is no budget period {kind!r}.", param="budget.period")
