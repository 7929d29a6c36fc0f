# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.conftest import Broker
from tests.portal.ledger.site import (
    NOW,
    PORTAL,
    WITHIN_S,
    Writers,
    connected,
    deposit,
    enter,
    living,
    until_entered,
    writers,
)

from helexa.bus.journal import Journal
from helexa.portal.ledger import accounts
from helexa.portal.ledger.audit import verify
from helexa.portal.ledger.block import sealed
from helexa.portal.ledger.client import LedgerClient
from helexa.portal.ledger.commands import COMMANDS, Capture, Hold, Release
from helexa.portal.ledger.errors import JournalBehindError, JournalForkedError
from helexa.portal.ledger.projection import open_projection
from helexa.portal.ledger.records import Records
from helexa.portal.ledger.refusals import Code, Refusal
from helexa.portal.ledger.restoring import restore
from helexa.portal.ledger.sequencer import Placed
from helexa.portal.ledger.state import Head
from helexa.protocol import resources
from helexa.protocol.errors import ConflictError, UnavailableError

ADA = accounts.available("ada", "USD")


@pytest.fixture
async def site(broker: Broker, tmp_path: Path) -> AsyncIterator[Writers]:
    async with writers(broker.url, tmp_path) as made:
        yield made


async def test_a_command_is_answered_when_the_journal_has_it(site: Writers) -> None:
    sequencer = await site.writer("one")
    placed = await enter(sequencer, deposit(1))
    assert await site.journal.last() == placed.head.number == 1
    [kept] = [kept async for kept in site.journal.read(1)]
    assert sealed(PORTAL, Head(), NOW, [placed.entry]) == (kept.data, placed.head)


async def test_what_waits_together_is_one_block(site: Writers) -> None:
    sequencer = await site.writer("one")
    placed = await asyncio.gather(*(enter(sequencer, deposit(number)) for number in range(600)))
    assert [each.head.number for each in placed] == [1] * 256 + [2] * 256 + [3] * 88
    assert await site.journal.last() == 3


async def test_a_command_sent_again_has_the_same_answer(site: Writers) -> None:
    sequencer = await site.writer("one")
    first, twin = await asyncio.gather(*(enter(sequencer, deposit(1)) for _ in range(2)))
    await enter(sequencer, deposit(2))
    again = await enter(sequencer, deposit(1))
    assert (first.is_new, twin.is_new, again.is_new) == (True, False, False)
    assert first.entry == twin.entry == again.entry
    assert first.head == twin.head == again.head
    assert await site.journal.last() == 2


async def test_of_capture_and_release_at_once_one_wins(site: Writers) -> None:
    sequencer = await site.writer("one")
    await enter(sequencer, deposit(1))
    await enter(sequencer, Hold(hold="h", user="ada", currency="USD", amount=80, lifetime_ms=1_000))
    commands = (Capture(hold="h", attempt=1, amount=30), Release(hold="h"))
    captured, released = await asyncio.gather(
        *(sequencer.submit(COMMANDS.pack(command)) for command in commands)
    )
    assert isinstance(captured, Placed)
    assert isinstance(released, Refusal)
    assert released.code == Code.HOLD_CLOSED


async def test_a_writer_that_was_overtaken_is_fenced_and_answers_nobody(site: Writers) -> None:
    stale, fresh = await site.writer("stale"), await site.writer("fresh")
    await enter(fresh, deposit(1))
    with pytest.raises(UnavailableError):
        await enter(stale, deposit(2))
    with pytest.raises(ConflictError):
        await site.running[0]
    with pytest.raises(UnavailableError):
        await enter(stale, deposit(3))
    assert (await enter(fresh, deposit(2))).is_new
    assert await site.journal.last() == 2


async def test_of_two_writers_at_once_no_block_is_lost_and_none_is_double(site: Writers) -> None:
    both = [await site.replica("one"), await site.replica("two")]
    acknowledged: list[int] = []

    async def write(which: int, numbers: range) -> None:
        replica, sequencer = both[which], site.write(both[which])
        running = site.running[-1]
        for number in numbers:
            while True:
                try:
                    await enter(sequencer, deposit(number))
                except UnavailableError:
                    await asyncio.wait({running})
                    replica.state = replica.projection.state()
                    await replica.catch_up()
                    sequencer, running = site.write(replica), site.running[-1]
                else:
                    acknowledged.append(number)
                    break

    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(write(0, range(40)), write(1, range(30, 70)))
    for replica in both:
        await replica.catch_up()
        assert replica.state.balance(ADA) == 70 * 100
        verify(replica.projection)
    assert len(acknowledged) == 80


async def test_an_unknown_outcome_answers_nobody_and_ends_the_writer(
    site: Writers, broker: Broker
) -> None:
    sequencer = await site.writer("one")
    await enter(sequencer, deposit(1))
    broker.stop(kill=True)
    with pytest.raises(UnavailableError):
        await enter(sequencer, deposit(2))
    with pytest.raises(UnavailableError):
        await site.running[0]
    broker.start()


async def test_a_replica_that_was_away_catches_up(site: Writers) -> None:
    sequencer = await site.writer("one")
    for number in range(150):
        await enter(sequencer, deposit(number))
    late = await site.replica("late")
    assert late.state.balance(ADA) == 15_000
    assert late.state.recent == {}
    assert verify(late.projection).entries == 150


async def test_a_journal_that_lost_acknowledged_blocks_is_refused_and_restored(
    site: Writers, broker: Broker, tmp_path: Path
) -> None:
    sequencer = await site.writer("one")
    for number in range(3):
        await enter(sequencer, deposit(number))
    kept = [each.data async for each in site.journal.read(1)]
    await site.end()
    site.resources.close()
    await site.bus.jetstream.delete_stream(resources.LEDGER.name)
    async with connected(broker.url) as bus:
        journal = Journal(bus, resources.LEDGER)
        await journal.append(kept[0], after=0)
        with pytest.raises(JournalBehindError, match="restore"):
            await site.replica("one")
        site.resources.close()
        with closing(Records.view(tmp_path / "one")) as records:
            assert await restore(journal, records) == 2
            assert await restore(journal, records) == 0
        assert [each.data async for each in journal.read(1)] == kept
        assert (await site.replica("one")).state.balance(ADA) == 300


async def test_a_journal_with_other_blocks_is_refused(
    site: Writers, broker: Broker, tmp_path: Path
) -> None:
    sequencer = await site.writer("one")
    placed = await enter(sequencer, deposit(1))
    await site.end()
    site.resources.close()
    await site.bus.jetstream.delete_stream(resources.LEDGER.name)
    async with connected(broker.url) as bus:
        journal = Journal(bus, resources.LEDGER)
        data, _ = sealed(PORTAL, Head(), NOW + 1, [placed.entry])
        await journal.append(data, after=0)
        with pytest.raises(JournalForkedError):
            await site.replica("one")
        with closing(Records.view(tmp_path / "one")) as records, pytest.raises(JournalForkedError):
            await restore(journal, records)


async def test_something_else_in_the_journal_is_refused(site: Writers) -> None:
    await site.journal.append(b"no block", after=0)
    with pytest.raises(JournalForkedError):
        await site.replica("one")


async def test_nothing_can_be_taken_out_of_the_journal(site: Writers) -> None:
    sequencer = await site.writer("one")
    await enter(sequencer, deposit(1))
    for taken_out in (
        site.bus.jetstream.delete_msg(resources.LEDGER.name, 1),
        site.bus.jetstream.purge_stream(resources.LEDGER.name),
    ):
        with pytest.raises(Exception, match="not permitted"):
            await taken_out


async def test_another_replica_takes_over_when_the_writer_leaves(
    broker: Broker, tmp_path: Path
) -> None:
    async with connected(broker.url) as bus:
        client = LedgerClient(bus, PORTAL)
        async with living(broker.url, tmp_path / "two", "two") as second:
            async with living(broker.url, tmp_path / "one", "one"):
                assert (await until_entered(client, deposit(1))).is_new
            again = await until_entered(client, deposit(1))
            assert not again.is_new
            assert (await until_entered(client, deposit(2))).head.number == 2
            assert second.is_ready
    for name in ("one", "two"):
        with open_projection(tmp_path / name, PORTAL) as projection:
            verify(projection)


async def test_a_replica_that_does_not_write_follows(broker: Broker, tmp_path: Path) -> None:
    async with (
        connected(broker.url) as bus,
        living(broker.url, tmp_path / "one", "one") as first,
        living(broker.url, tmp_path / "two", "two") as second,
    ):
        placed = await until_entered(LedgerClient(bus, PORTAL), deposit(1))
        heads = [Head(), Head()]
        async with asyncio.timeout(WITHIN_S):
            while heads != [placed.head] * 2:
                await asyncio.sleep(0.02)
                heads = [each.projection.head() for each in (first, second)]
        assert first.is_writing != second.is_writing


async def test_a_refusal_crosses_with_its_code(broker: Broker, tmp_path: Path) -> None:
    async with connected(broker.url) as bus, living(broker.url, tmp_path / "one", "one"):
        client = LedgerClient(bus, PORTAL)
        await until_entered(client, deposit(1))
        command = Hold(hold="h", user="ada", currency="USD", amount=101, lifetime_ms=1)
        answer = await client.enter(command)
        assert isinstance(answer, Refusal)
        assert (answer.code, answer.available) == (Code.INSUFFICIENT_FUNDS, 100)
