# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from pathlib import Path

import pytest

from helexa.portal.ledger.block import (
    BlockFormatError,
    BlockVersionError,
    ChainError,
    opened,
    sealed,
    time_after,
)
from helexa.portal.ledger.commands import Capture, Deposit, Grant, Hold, Release, SetBudget
from helexa.portal.ledger.entries import Entry
from helexa.portal.ledger.plan import Entered, plan
from helexa.portal.ledger.state import Head, State
from helexa.protocol.codec import Signable, pack_canonical, pack_plain, unpack_canonical

GOLDEN = Path(__file__).parent / "block-v1.hex"
NOW = 1_770_000_000_000


def entries() -> list[Entry]:
    """Return entries that show every shape that a block's bytes have."""
    state = State()
    commands = (
        Deposit(user="ada", currency="USD", rail="bank", reference="x", amount=5_000_000, fee=9),
        Grant(grant="g1", user="ada", currency="USD", amount=100, expires_at_ms=NOW + 1),
        SetBudget(change="b", api_key="k", currency="USD", window="month", limit=1_000),
        Hold(
            hold="g.1",
            user="ada",
            currency="USD",
            amount=700,
            lifetime_ms=60_000,
            api_key="k",
            price="v1",
        ),
        Capture(hold="g.1", attempt=1, amount=300, payees=(("p", 290),), is_last=False),
        Release(hold="g.1", reason="done"),
    )
    found = [plan(state, command, NOW) for command in commands]
    assert all(isinstance(each, Entered) for each in found)
    return [each.entry for each in found if isinstance(each, Entered)]


def block() -> bytes:
    return sealed("default", Head(), NOW, entries())[0]


def changed(**fields: Signable) -> bytes:
    whole = unpack_canonical(block())
    assert isinstance(whole, dict)
    return pack_canonical(whole | fields)


def test_a_block_has_the_bytes_that_it_had_when_this_version_was_made() -> None:
    assert block().hex() == GOLDEN.read_text().strip()


def test_a_block_is_canonical_msgpack() -> None:
    assert pack_canonical(unpack_canonical(block())) == block()


def test_a_block_reads_back_as_it_was() -> None:
    data, head = sealed("default", Head(), NOW, entries())
    read, read_head = opened("default", Head(), data)
    assert list(read.entries) == entries()
    assert read_head == head


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", BlockFormatError),
        (b"\xc1", BlockFormatError),
        (pack_plain([1]), BlockFormatError),
        (block() + b"\xc0", BlockFormatError),
        (block()[:-1], BlockFormatError),
        (pack_plain(dict(reversed(unpack_canonical(block()).items()))), BlockFormatError),  # type: ignore[union-attr]
        (changed(entries=[]), BlockFormatError),
        (changed(surplus=1), BlockFormatError),
        (changed(version=True), BlockFormatError),
        (changed(version=2), BlockVersionError),
        (changed(version=2, entries="of another shape"), BlockVersionError),
        (changed(ledger="other"), ChainError),
        (changed(number=2), ChainError),
        (changed(previous=bytes(31) + b"x"), ChainError),
        (changed(time_ms=-1), ChainError),
    ],
)
def test_what_is_no_next_block_is_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        opened("default", Head(), data)


def test_a_block_with_more_entries_than_it_may_have_is_refused() -> None:
    data, _ = sealed("default", Head(), NOW, entries() * 43)
    with pytest.raises(BlockFormatError):
        opened("default", Head(), data)


def test_time_never_goes_back() -> None:
    head = Head(1, bytes(32), 500)
    assert time_after(head, 400) == 500
    assert time_after(head, 600) == 600
