# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which requests go before others: what callers say, and what they may say."""

from enum import IntEnum
from typing import NamedTuple

from helexa.gateway.fields import bad

HEADER = "x-helexa-priority"
FIELD = "service_tier"


class Priority(IntEnum):
    """A class of requests; a lower number goes first."""

    INTERACTIVE = 0
    DEFAULT = 1
    BULK = 2


NAMES = tuple(each.name.lower() for each in sorted(Priority))
"""The name of each class, by its number."""


class Standing(NamedTuple):
    """What decides when a request that waits is served."""

    key: str = ""
    """Requests with the same one share what that caller gets; empty without a key."""
    priority: Priority = Priority.DEFAULT
    yields: bool = False
    """Whether it gives way to every request that does not."""


_BY_NAME: dict[str, Priority | None] = {
    "interactive": Priority.INTERACTIVE,
    "priority": Priority.INTERACTIVE,
    "default": Priority.DEFAULT,
    "scale": Priority.DEFAULT,
    "bulk": Priority.BULK,
    "flex": Priority.BULK,
    "batch": Priority.BULK,
    "auto": None,
}
_TIERS = {
    Priority.INTERACTIVE: "priority",
    Priority.DEFAULT: "default",
    Priority.BULK: "flex",
}


def asked_priority(header: str, tier: object, *, may_claim: bool) -> Priority | None:
    """Return the class that a caller asks for and may have; `None` leaves it to the gateway.

    Args:
        header: The header `x-helexa-priority`, empty if it is absent. It goes before the field.
        tier: The field `service_tier` of OpenAI's API.
        may_claim: Whether this caller may go before others.

    Raises:
        BadRequestError: one of them is not a class.
    """
    found = [
        _read(name, value)
        for name, value in ((HEADER, header.lower()), (FIELD, tier))
        if isinstance(value, str) and value
    ]
    asked = next((each for each in found if each is not None), None)
    if asked is Priority.INTERACTIVE and not may_claim:
        return None
    return asked


def tier_of(priority: Priority) -> str:
    """Return OpenAI's name for a class."""
    return _TIERS[priority]


def _read(name: str, value: str) -> Priority | None:
    if value not in _BY_NAME:
        bad(name, f"{name!r} is one of: {', '.join(sorted(_BY_NAME))}.")
    return _BY_NAME[value]
