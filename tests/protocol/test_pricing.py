# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What requests cost, and what their holds must cover."""

from fractions import Fraction
from math import ceil
from random import Random

import pytest

from helexa.protocol.codec import Signable, pack_canonical, unpack_canonical
from helexa.protocol.errors import MalformedError
from helexa.protocol.money import LARGEST_AMOUNT, AmountError, AmountOverflowError
from helexa.protocol.price_list import PriceList
from helexa.protocol.pricing import (
    Price,
    UnpricedError,
    Usage,
    cost_of,
    further_cost,
    hold_for,
    split,
)

CASES = 300_000
PRICE = Price("USD", prompt=150_000, cached_prompt=75_000, completion=600_000)


def a_price(random: Random) -> Price:
    prompt = random.randrange(10 ** random.randrange(1, 9))
    return Price(
        "USD",
        prompt=prompt,
        cached_prompt=random.choice((None, random.randint(0, prompt))),
        completion=random.randrange(10 ** random.randrange(1, 9)),
        request=random.choice((0, random.randrange(1000))),
        image=random.randrange(10_000),
        audio_second=random.randrange(1000),
    )


def test_a_request_within_its_bounds_never_costs_more_than_its_hold() -> None:
    random = Random(5)  # noqa: S311 - the same cases in each run
    for _ in range(CASES):
        price = a_price(random)
        prompt, most, choices = (random.randrange(10**each) for each in (6, 5, 1))
        images, seconds = random.randrange(9), random.randrange(600)
        hold = hold_for(
            price,
            prompt_tokens=prompt,
            max_tokens=most,
            choices=choices,
            images=images,
            audio_seconds=seconds,
        )
        tokens = random.randint(0, prompt)
        usage = Usage(
            prompt_tokens=tokens,
            cached_tokens=random.randint(0, tokens),
            completion_tokens=random.randint(0, most * choices),
            images=random.randint(0, images),
            audio_seconds=random.randint(0, seconds),
        )
        cost = cost_of(price, usage)
        assert 0 <= cost <= hold
        parts = split(cost, random.randint(0, 10_000))
        assert parts.fee + parts.provider == cost
        assert min(parts.fee, parts.provider) >= 0


def test_a_cost_is_rounded_up_once() -> None:
    price = Price("USD", prompt=1, cached_prompt=1, completion=1, request=7, image=5)
    usage = Usage(prompt_tokens=2, cached_tokens=1, completion_tokens=1, images=2)
    assert cost_of(price, usage) == 1 + 7 + 10


def test_the_attempts_of_a_request_are_rounded_once_together() -> None:
    random = Random(6)  # noqa: S311 - the same cases in each run
    for _ in range(20_000):
        price, before, costs, exact = a_price(random), Usage(requests=0), 0, Fraction(0)
        for attempt in range(random.randrange(1, 5)):
            usage = Usage(
                prompt_tokens=random.randrange(1000),
                completion_tokens=random.randrange(1000),
                requests=attempt == 0,
            )
            added, alone = further_cost(price, before, usage), cost_of(price, usage)
            assert alone - 1 <= added <= alone
            costs += added
            exact += Fraction(usage.prompt_tokens * (price.prompt or 0), 10**6)
            exact += Fraction(usage.completion_tokens * (price.completion or 0), 10**6)
            before = before.plus(usage)
        assert costs == ceil(exact) + price.request


def test_the_example_of_the_price_page() -> None:
    usage = Usage(prompt_tokens=1000, cached_tokens=400, completion_tokens=500)
    assert cost_of(PRICE, usage) == 90 + 30 + 300
    assert hold_for(PRICE, prompt_tokens=1000, max_tokens=500, choices=2) == 150 + 600


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt_tokens=1),
        Usage(prompt_tokens=1, cached_tokens=1),
        Usage(completion_tokens=1),
        Usage(images=1),
        Usage(audio_seconds=1),
    ],
)
def test_what_has_no_price_is_not_free(usage: Usage) -> None:
    with pytest.raises(UnpricedError):
        cost_of(Price("USD"), usage)
    with pytest.raises(UnpricedError):
        PriceList("default", {}).price("m")
    assert cost_of(Price("USD", prompt=0, completion=0, image=0, audio_second=0), usage) == 0


def test_tokens_without_a_cached_price_cost_as_others() -> None:
    price = Price("USD", prompt=1_000_000)
    assert cost_of(price, Usage(prompt_tokens=10, cached_tokens=4)) == 10


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": -1},
        {"request": -1},
        {"prompt": 1, "cached_prompt": 2},
        {"cached_prompt": 1},
        {"prompt": LARGEST_AMOUNT + 1},
    ],
)
def test_a_price_that_a_hold_could_not_cover_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(AmountError):
        Price("USD", **fields)


@pytest.mark.parametrize(
    "fields",
    [{"prompt_tokens": -1}, {"cached_tokens": 1}, {"requests": -1}, {"images": -1}],
)
def test_a_count_that_cannot_be_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(MalformedError):
        Usage(**fields)


def test_a_cost_of_more_than_64_bits_is_refused() -> None:
    price = Price("USD", prompt=LARGEST_AMOUNT)
    assert cost_of(price, Usage(prompt_tokens=1_000_000)) == LARGEST_AMOUNT
    with pytest.raises(AmountOverflowError):
        cost_of(price, Usage(prompt_tokens=1_000_001))


@pytest.mark.parametrize(("amount", "fee"), [(-1, 100), (100, -1), (100, 10_001)])
def test_a_split_that_makes_no_sense_is_refused(amount: int, fee: int) -> None:
    with pytest.raises(AmountError):
        split(amount, fee)


VERSION = "dff6971af41f9806200ecbb7abd704391189d024f5ecba86860f1580fd41ed42"
PRICES = PriceList("default", {"m": PRICE, "e": Price("EUR", prompt=20_000)}, 250)


def test_equal_prices_have_one_version_whatever_their_order() -> None:
    other = PriceList("default", dict(sorted(PRICES.models.items())), 250)
    assert other.encoded == PRICES.encoded
    assert other.version == PRICES.version
    assert PRICES.version == VERSION


@pytest.mark.parametrize(
    "other",
    [
        PriceList("other", PRICES.models, 250),
        PriceList("default", PRICES.models, 251),
        PriceList("default", {**PRICES.models, "n": PRICE}, 250),
        PriceList("default", {**PRICES.models, "e": Price("EUR", prompt=20_001)}, 250),
        PriceList("default", {**PRICES.models, "e": Price("USD", prompt=20_000)}, 250),
    ],
)
def test_every_change_is_another_version(other: PriceList) -> None:
    assert other.version != PRICES.version


def test_a_list_survives_its_bytes_and_its_json() -> None:
    assert PriceList.decode(PRICES.encoded) == PRICES
    written = PRICES.to_json()
    assert PriceList.from_json(written) == PRICES
    assert written["models"] == {
        "m": {
            "currency": "USD",
            "prompt": "0.15",
            "cached_prompt": "0.075",
            "completion": "0.6",
            "request": "0",
        },
        "e": {"currency": "EUR", "prompt": "0.02", "request": "0"},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0" * 64},
        {"fee_basis_points": "250"},
        {"fee_basis_points": 10_001},
        {"models": {"m": {"currency": "USD", "prompt": 0.15}}},
        {"models": {"m": {"currency": "USD", "prompt": 1}}},
        {"models": {"m": {"currency": "USD", "promt": "1"}}},
        {"models": {"m": {"prompt": "1"}}},
        {"models": []},
        {"color": "blue"},
    ],
)
def test_a_slip_in_a_list_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((MalformedError, AmountError)):
        PriceList.from_json(PRICES.to_json() | change)


def test_bytes_that_are_no_list_are_refused() -> None:
    fields = unpack_canonical(PRICES.encoded)
    assert isinstance(fields, dict)
    changes: tuple[dict[str, Signable], ...] = (
        {"type": "x"},
        {"version": 2},
        {"extra": 1},
        {"models": {"m": {"prompt": 1}}},
    )
    for change in changes:
        with pytest.raises(MalformedError):
            PriceList.decode(pack_canonical(fields | change))
    with pytest.raises(MalformedError):
        PriceList.decode(b"\xc1")
    with pytest.raises(MalformedError):
        PriceList.decode(pack_canonical([1]))


def test_a_list_cannot_be_changed_after_it_has_a_version() -> None:
    models = {"m": PRICE}
    prices = PriceList("default", models)
    version = prices.version
    models["n"] = PRICE
    assert (set(prices.models), prices.version) == ({"m"}, version)
