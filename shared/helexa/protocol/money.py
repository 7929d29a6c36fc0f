# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Amounts of money: whole micro-units (1e-6) of a currency, their bound and their text.

An amount is an `int` everywhere but in JSON, where it is decimal text: no reader of JSON has to
keep 64-bit integers whole, and none may make a float of it.
"""

import re

from helexa.protocol.errors import BadRequestError

MICROS = 1_000_000
"""Micro-units in one unit of a currency."""
LARGEST_AMOUNT = 2**63 - 1
"""What fits in 64 bits with a sign; nothing larger is booked, stored or signed."""
BASIS_POINTS = 10_000
"""Parts in a whole: a fee of 250 is 2.5 %."""

_DIGITS = 6
_TEXT = re.compile(r"(-?)(0|[1-9][0-9]{0,12})(?:\.([0-9]{1,6}))?")
_CURRENCY = re.compile(r"[A-Z]{3,5}")


class AmountError(BadRequestError):
    """This is not an amount of money."""

    code = "bad_amount"


class AmountOverflowError(AmountError):
    """The amount does not fit in 64 bits."""

    code = "amount_overflow"


def checked_amount(amount: int) -> int:
    """Return `amount`.

    Raises:
        AmountOverflowError: its size is above `LARGEST_AMOUNT`.
    """
    if not -LARGEST_AMOUNT <= amount <= LARGEST_AMOUNT:
        raise AmountOverflowError
    return amount


def parse_amount(text: object) -> int:
    """Return the micro-units that a decimal text such as `12.5` stands for.

    There is no other way to write a number here: no exponent, `+`, space, group of digits, leading
    zero or seventh decimal, and a JSON number is not text.

    Raises:
        AmountError: it is not such a text.
        AmountOverflowError: it is larger than what is booked.
    """
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise AmountError("an amount is decimal text such as '12.5', with at most 6 decimals")
    sign, whole, decimals = found[1], found[2], found[3] or ""
    amount = int(whole) * MICROS + int(decimals.ljust(_DIGITS, "0"))
    if sign and not amount:
        raise AmountError("there is no negative zero")
    return checked_amount(-amount if sign else amount)


def format_amount(amount: int) -> str:
    """Return `amount` as the shortest text that `parse_amount` reads as it.

    Raises:
        AmountOverflowError: it is larger than what is booked.
    """
    whole, decimals = divmod(abs(checked_amount(amount)), MICROS)
    text = f"{whole}.{decimals:06}".rstrip("0").rstrip(".") if decimals else str(whole)
    return f"-{text}" if amount < 0 else text


def checked_currency(text: str) -> str:
    """Return `text`.

    Raises:
        AmountError: it is not the code of a currency, 3 to 5 upper-case letters.
    """
    if _CURRENCY.fullmatch(text) is None:
        raise AmountError(f"{text!r} is not a currency: 3 to 5 upper-case letters")
    return text
