# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from random import Random

import pytest

from helexa.protocol.money import (
    LARGEST_AMOUNT,
    AmountError,
    AmountOverflowError,
    checked_currency,
    format_amount,
    parse_amount,
)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("0.000001", 1),
        ("1", 1_000_000),
        ("12.5", 12_500_000),
        ("12.50", 12_500_000),
        ("-0.3", -300_000),
        ("9223372036854.775807", LARGEST_AMOUNT),
        ("-9223372036854.775807", -LARGEST_AMOUNT),
    ],
)
def test_a_decimal_text_is_exactly_an_amount(text: str, amount: int) -> None:
    assert parse_amount(text) == amount
    assert parse_amount(format_amount(amount)) == amount


@pytest.mark.parametrize(
    "text",
    [
        *("", ".5", "1.", "01", "1e3", "+1", " 1", "1 ", "1,5", "1_0", "-0", "-0.00", "0x1", "\n1"),
        *("0.0000001", "1.1234567", "NaN", "inf", "1.5.0", "--1", "٣", "½", "1\n"),
        *(1, 1.5, None, True, b"1"),
    ],
)
def test_nothing_else_is_an_amount(text: object) -> None:
    with pytest.raises(AmountError):
        parse_amount(text)


@pytest.mark.parametrize("text", ["9223372036854.775808", "-9223372036854.775808", "9" * 13])
def test_an_amount_of_more_than_64_bits_is_refused(text: str) -> None:
    with pytest.raises(AmountOverflowError):
        parse_amount(text)
    with pytest.raises(AmountOverflowError):
        format_amount(LARGEST_AMOUNT + 1)


def test_every_amount_survives_its_text() -> None:
    random = Random(5)  # noqa: S311 - the same cases in each run
    for _ in range(100_000):
        amount = random.randrange(-LARGEST_AMOUNT, LARGEST_AMOUNT) >> random.randrange(64)
        text = format_amount(amount)
        assert parse_amount(text) == amount
        assert text == text.strip()
        assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize("code", ["", "US", "usd", "DOLLAR", "US1", "USD ", "ÄÖÜ"])
def test_a_currency_is_three_to_five_capitals(code: str) -> None:
    assert checked_currency("XTS") == "XTS"
    with pytest.raises(AmountError):
        checked_currency(code)
