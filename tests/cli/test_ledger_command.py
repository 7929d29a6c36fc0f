# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
import json
from pathlib import Path

import pytest
from tests.cli.conftest import Helexa
from tests.conftest import Broker
from tests.portal.ledger.site import deposit, enter, writers

from helexa.bus.journal import Journal
from helexa.protocol import resources


def make_ledger(url: str, data: Path, deposits: int = 3) -> None:
    """Enter some deposits, as a portal does that keeps its copy in the data directory."""

    async def make() -> None:
        async with writers(url, data / "ledgers") as site:
            sequencer = await site.writer("default")
            for number in range(deposits):
                await enter(sequencer, deposit(number, 1_500_000))
            await site.end()
            site.resources.close()
            await site.replica("default")

    asyncio.run(make())


def lose_journal(url: str, data: Path) -> None:
    async def lose() -> None:
        async with writers(url, data) as site:
            await site.bus.jetstream.delete_stream(resources.LEDGER.name)

    asyncio.run(lose())


def journal_length(url: str, data: Path) -> int:
    async def look() -> int:
        async with writers(url, data) as site:
            return await Journal(site.bus, resources.LEDGER).last()

    return asyncio.run(look())


def test_a_whole_ledger_is_verified(helexa: Helexa, broker: Broker, tmp_path: Path) -> None:
    make_ledger(broker.url, tmp_path)
    done = helexa("ledger", "verify", "--data-dir", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.startswith("default: 3 blocks, 3 entries, 2 accounts")


def test_a_statement_shows_amounts_and_balances(
    helexa: Helexa, broker: Broker, tmp_path: Path
) -> None:
    make_ledger(broker.url, tmp_path)
    directory = ("--directory", str(tmp_path / "ledgers" / "default"))
    done = helexa("ledger", "statement", "user:ada:avail:USD", *directory)
    assert done.returncode == 0
    opening, *lines, closing = done.stdout.splitlines()
    assert opening.split() == ["0", "opening", "balance"]
    assert closing.split() == ["4.5", "closing", "balance"]
    assert [line.split()[1:] for line in lines] == [
        ["1.5", f"{1.5 * (number + 1):g}", "deposit", f"deposit:bank:d{number}"]
        for number in range(3)
    ]
    nothing = helexa(
        "ledger", "statement", "user:ada:avail:USD", "--until", "2020-01-01", *directory
    )
    assert len(nothing.stdout.splitlines()) == 2


def test_an_export_is_json_a_line(helexa: Helexa, broker: Broker, tmp_path: Path) -> None:
    make_ledger(broker.url, tmp_path)
    done = helexa("ledger", "export", "--data-dir", str(tmp_path))
    assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == [1, 2, 3]


def test_lost_blocks_are_put_back(helexa: Helexa, broker: Broker, tmp_path: Path) -> None:
    make_ledger(broker.url, tmp_path)
    lose_journal(broker.url, tmp_path / "other")
    words = ("ledger", "restore", "--data-dir", str(tmp_path), "--nats-url", broker.url)
    assert helexa(*words).stdout == "default: 3 blocks were put back\n"
    assert helexa(*words).stdout == "default: 0 blocks were put back\n"
    assert journal_length(broker.url, tmp_path / "other") == 3


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "--directory", "missing"),
        ("statement", "user:ada:avail:USD", "--since", "yesterday"),
        ("forget",),
        (),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(helexa: Helexa, words: tuple[str, ...]) -> None:
    done = helexa("ledger", *words)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
