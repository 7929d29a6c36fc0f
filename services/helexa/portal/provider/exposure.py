# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How much unpaid work a provider does for a portal."""

from dataclasses import dataclass

from helexa.protocol.errors import RefusedError
from helexa.protocol.money import BASIS_POINTS

MOST_CUTS = 63
"""After so many halvings nothing is left of an amount."""


class ExposureError(RefusedError):
    """The portal owes as much as this provider lets it."""

    code = "exposure_exceeded"


@dataclass(frozen=True, slots=True)
class CreditTerms:
    """What portals are trusted with, in micro-units of one currency."""

    first: int
    """For a portal that has paid nothing yet."""
    most: int
    """For any portal."""
    growth_basis_points: int = 1_000
    """The part of all that a portal has paid by which it is trusted with more."""
    overdue_ms: int = 7 * 86_400_000
    """How long a claim may wait; each such time after which it is open halves the trust."""


NO_CREDIT = CreditTerms(first=0, most=0)
"""In a currency that nothing is said about."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a portal has behaved, in one currency."""

    earned: int = 0
    """All amounts of its receipts."""
    settled: int = 0
    """All that it has paid of them."""
    in_flight: int = 0
    """What work without a receipt is expected to earn."""
    open_since_ms: int | None = None
    """When the oldest claim was made that is not settled."""
    has_forked: bool = False
    """Whether it is proven to have signed receipts that contradict each other."""

    @property
    def exposure(self) -> int:
        """What would be lost if it never paid again."""
        return self.earned - self.settled + self.in_flight


def cap_of(terms: CreditTerms, standing: Standing, now_ms: int) -> int:
    """Return how much a portal may owe: it grows with what it paid, and halves while it is late.

    A portal that has forked is trusted with nothing.
    """
    if standing.has_forked:
        return 0
    grown = terms.first + standing.settled * terms.growth_basis_points // BASIS_POINTS
    cap = min(terms.most, grown)
    if standing.open_since_ms is None:
        return cap
    waits_ms = max(0, now_ms - standing.open_since_ms)
    return cap >> min(MOST_CUTS, waits_ms // terms.overdue_ms)


def check_room(terms: CreditTerms, standing: Standing, estimate: int, now_ms: int) -> None:
    """Refuse work that would leave a portal owing more than it may.

    Raises:
        ExposureError: it would.
    """
    cap = cap_of(terms, standing, now_ms)
    if standing.exposure + estimate > cap:
        raise ExposureError(
            f"the portal owes {standing.exposure} micro-units of at most {cap}; "
            "this provider serves it again when it has paid"
        )
