# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The prices of a portal, under a version that can only mean these prices.

A hold pins the version, and a receipt names it: a change of prices touches nothing that runs.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Self, cast

from helexa.protocol.codec import Signable, pack_canonical, unpack_canonical
from helexa.protocol.errors import MalformedError
from helexa.protocol.money import format_amount, parse_amount
from helexa.protocol.pricing import Price, UnpricedError, split

PRICES_DOMAIN = b"helexa-prices-v1\0"
"""Goes before the bytes that a version is the hash of."""
PRICES_TYPE = "helexa.prices"

_AMOUNTS = frozenset(("prompt", "cached_prompt", "completion", "request", "image", "audio_second"))


@dataclass(frozen=True)
class PriceList:
    """What one portal charges for each model, and what part of it the portal keeps."""

    portal: str
    models: Mapping[str, Price]
    fee_basis_points: int = 0
    """Of each request's cost, rounded down; the provider gets the rest."""

    def __post_init__(self) -> None:
        """Keep a copy that cannot change.

        Raises:
            AmountError: the fee is not between 0 and 10,000.
        """
        split(0, self.fee_basis_points)
        object.__setattr__(self, "models", MappingProxyType(dict(self.models)))

    def price(self, model: str) -> Price:
        """Return the price of `model`.

        Raises:
            UnpricedError: there is none.
        """
        price = self.models.get(model)
        if price is None:
            raise UnpricedError(f"this portal has no price for the model {model!r}")
        return price

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes: equal lists have equal bytes."""
        models: dict[str, Signable] = {
            name: {"currency": price.currency, **price.amounts}
            for name, price in self.models.items()
        }
        fields: dict[str, Signable] = {
            "type": PRICES_TYPE,
            "version": 1,
            "portal": self.portal,
            "fee_basis_points": self.fee_basis_points,
            "models": models,
        }
        return pack_canonical(fields)

    @cached_property
    def version(self) -> str:
        """The id of these prices: SHA-256 in hexadecimal."""
        return hashlib.sha256(PRICES_DOMAIN + self.encoded).hexdigest()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the list whose canonical bytes are `data`.

        Raises:
            MalformedError: it is not one.
        """
        fields = unpack_canonical(data)
        if not isinstance(fields, dict):
            raise MalformedError("a price list is a map")
        if (fields.get("type"), fields.get("version")) != (PRICES_TYPE, 1):
            raise MalformedError("this is not a price list of a version that is known here")
        made = cls._of(fields, _whole)
        if made.encoded != data:
            raise MalformedError("the price list holds what is not known here")
        return made

    @classmethod
    def from_json(cls, fields: object) -> Self:
        """Return the list that `to_json` has written.

        Raises:
            MalformedError: it is not one.
            AmountError: an amount is not decimal text, or cannot be a price.
        """
        if not isinstance(fields, dict):
            raise MalformedError("a price list is an object")
        known = {"portal", "fee_basis_points", "models", "version"}
        if unknown := set(fields) - known:
            raise MalformedError(f"a price list has no field {min(map(str, unknown))!r}")
        made = cls._of(cast("dict[str, Signable]", fields), parse_amount)
        if fields.get("version", made.version) != made.version:
            raise MalformedError("the price list is not of the version that it names")
        return made

    def to_json(self) -> dict[str, object]:
        """Return the list as JSON carries it; its prices are decimal text."""
        models = {
            name: {"currency": price.currency}
            | {kind: format_amount(amount) for kind, amount in price.amounts.items()}
            for name, price in self.models.items()
        }
        return {
            "portal": self.portal,
            "version": self.version,
            "fee_basis_points": self.fee_basis_points,
            "models": models,
        }

    @classmethod
    def _of(cls, fields: dict[str, Signable], amount: Callable[[object], int]) -> Self:
        portal, fee, models = (
            fields.get(name) for name in ("portal", "fee_basis_points", "models")
        )
        if not (isinstance(portal, str) and type(fee) is int and isinstance(models, dict)):
            raise MalformedError("a price list has a portal, a fee and models")
        return cls(portal, {name: _price(held, amount) for name, held in models.items()}, fee)


def _price(held: Signable, amount: Callable[[object], int]) -> Price:
    if not isinstance(held, dict) or not isinstance(currency := held.get("currency"), str):
        raise MalformedError("a price is a map with a currency")
    amounts = {name: amount(value) for name, value in held.items() if name != "currency"}
    if unknown := set(amounts) - _AMOUNTS:
        raise MalformedError(f"a price has no field {min(unknown)!r}")
    return Price(currency, **amounts)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise MalformedError("an amount in a price list is a whole number of micro-units")
    return value
