# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from tests.portal.ledger.histories import START_MS, History

from helexa.portal.ledger import accounts
from helexa.portal.ledger.audit import exported, verify
from helexa.portal.ledger.block import sealed, time_after
from helexa.portal.ledger.commands import Deposit
from helexa.portal.ledger.entries import Entry
from helexa.portal.ledger.errors import DamagedError, LedgerInUseError, ProjectionVersionError
from helexa.portal.ledger.plan import Entered, plan
from helexa.portal.ledger.projection import Applied, Projection, open_projection
from helexa.portal.ledger.records import FILE, Records
from helexa.portal.ledger.state import State
from helexa.protocol.money import parse_amount

LEDGER = "default"


def next_block(history: History, commands: int = 60) -> Applied:
    """Return the block of the next random commands."""
    entries: list[Entry] = []
    state = history.state
    while not entries:
        for _ in range(commands):
            answer = plan(state, history.next(), history.time_ms)
            if isinstance(answer, Entered) and answer.is_new:
                entries.append(answer.entry)
    data, head = sealed(LEDGER, state.head, time_after(state.head, history.time_ms), entries)
    state.head = head
    return Applied(entries, data, head, state.take_changes())


def filled(projection: Projection, seed: int = 1, blocks: int = 12) -> History:
    """Write a random history, as the process that plans it does."""
    history = History(Random(seed), projection.state())  # noqa: S311 - the same in each run
    for _ in range(blocks):
        applied = next_block(history)
        projection.append([applied])
        history.state.archived(applied.entries)
    return history


@pytest.fixture
def projection(tmp_path: Path) -> Iterator[Projection]:
    with open_projection(tmp_path / "ledger", LEDGER) as found:
        yield found


def change(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / FILE)) as connection, connection:
        assert connection.execute(statement).rowcount


def test_the_state_that_is_loaded_is_the_state_that_was_kept(
    projection: Projection,
) -> None:
    history = filled(projection)
    assert history.state.recent == {}
    loaded = projection.state()
    assert loaded == history.state
    assert loaded.grants("ada", "USD") == history.state.grants("ada", "USD")
    for command in history.sent:
        before = history.state.find(command.id)
        assert loaded.find(command.id) == before


def test_commands_are_the_same_again_after_a_restart(tmp_path: Path) -> None:
    with open_projection(tmp_path, LEDGER) as projection:
        history = filled(projection)
    with open_projection(tmp_path, LEDGER) as projection:
        state = projection.state()
        balances = dict(state.balances)
        for command in history.sent:
            if state.find(command.id) is not None:
                answer = plan(state, command, history.time_ms)
                assert not (isinstance(answer, Entered) and answer.is_new)
        assert state.balances == balances


def test_a_block_that_is_not_taken_over_whole_is_not_taken_over(tmp_path: Path) -> None:
    with open_projection(tmp_path, LEDGER) as projection:
        history = filled(projection)
        kept = projection.head()
        first, second = next_block(history), next_block(history)
        twice = Applied(first.entries, second.data, second.head, second.changes)
        with pytest.raises(Exception, match="UNIQUE"):
            projection.append([first, twice])
    with open_projection(tmp_path, LEDGER) as projection:
        assert projection.head() == kept
        verify(projection)


def test_a_whole_ledger_passes_its_audit(projection: Projection) -> None:
    history = filled(projection)
    audit = verify(projection)
    assert audit.head == history.state.head
    assert audit.accounts == len(history.state.balances)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts SET balance = balance + 1 WHERE number = 1",
        "UPDATE postings SET amount = amount + 1 WHERE entry = 1",
        "UPDATE blocks SET bytes = CAST(bytes || x'00' AS BLOB) WHERE number = 5",
        "UPDATE blocks SET bytes = (SELECT bytes FROM blocks WHERE number = 4) WHERE number = 5",
        "DELETE FROM items WHERE name = (SELECT min(name) FROM items)",
        "DELETE FROM entries WHERE number = 1",
    ],
)
def test_an_audit_finds_what_was_changed(tmp_path: Path, statement: str) -> None:
    with open_projection(tmp_path, LEDGER) as projection:
        filled(projection)
    change(tmp_path, statement)
    with closing(Records.view(tmp_path)) as records, pytest.raises(DamagedError):
        verify(records)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE head SET number = number - 1",
        "UPDATE head SET hash = zeroblob(32)",
        "DELETE FROM blocks WHERE number = (SELECT max(number) FROM blocks)",
        "DELETE FROM head",
    ],
)
def test_a_projection_without_its_head_does_not_open(tmp_path: Path, statement: str) -> None:
    with open_projection(tmp_path, LEDGER) as projection:
        filled(projection)
    change(tmp_path, statement)
    with pytest.raises(DamagedError), open_projection(tmp_path, LEDGER):
        pass


def test_a_file_that_is_no_projection_does_not_open(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"something else" * 100)
    with pytest.raises(DamagedError), open_projection(tmp_path, LEDGER):
        pass


def test_a_projection_of_another_version_says_so(tmp_path: Path) -> None:
    with open_projection(tmp_path, LEDGER):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ProjectionVersionError), open_projection(tmp_path, LEDGER):
        pass


def test_a_projection_is_of_one_ledger(tmp_path: Path) -> None:
    with open_projection(tmp_path, LEDGER):
        pass
    with pytest.raises(DamagedError), open_projection(tmp_path, "other"):
        pass


def test_a_projection_has_one_writer_and_its_files_are_private(tmp_path: Path) -> None:
    place = tmp_path / "ledger"
    with open_projection(place, LEDGER):
        with pytest.raises(LedgerInUseError), open_projection(place, LEDGER):
            pass
        modes = {file.stat().st_mode & 0o077 for file in (place, *place.iterdir())}
    assert modes == {0}


def test_a_projection_is_durable_by_itself(projection: Projection) -> None:
    writer = projection._writer  # noqa: SLF001 - what it is told cannot be seen from outside
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_statement_tells_what_happened_in_a_period(projection: Projection) -> None:
    state, account = projection.state(), accounts.available("ada", "USD")
    for number in range(4):
        time_ms = START_MS + number * 1_000
        command = Deposit(
            user="ada", currency="USD", rail="bank", reference=f"d{number}", amount=10 + number
        )
        answer = plan(state, command, time_ms)
        assert isinstance(answer, Entered)
        data, state.head = sealed(LEDGER, state.head, time_ms, [answer.entry])
        block = Applied([answer.entry], data, state.head, state.take_changes())
        projection.append([block])
    found = projection.statement(account, START_MS + 1_000, START_MS + 3_000)
    assert (found.opening, found.closing) == (10, 33)
    assert [(line.id, line.amount, line.balance) for line in found.lines] == [
        ("deposit:bank:d1", 11, 21),
        ("deposit:bank:d2", 12, 33),
    ]
    later = projection.statement(account, START_MS + 9_000, START_MS + 10_000)
    assert (later.opening, later.closing, later.lines) == (46, 46, ())
    assert projection.statement("debt:ada:USD", 0, START_MS).closing == 0


def test_an_export_has_one_line_a_block_and_amounts_as_text(projection: Projection) -> None:
    history = filled(projection, blocks=3)
    lines = [json.loads(line) for line in exported(projection)]
    assert [line["number"] for line in lines] == [1, 2, 3]
    assert lines[2]["previous"] == lines[1]["hash"]
    assert lines[2]["hash"] == history.state.head.hash.hex()
    entries = [entry for line in lines for entry in line["entries"]]
    postings = [each for entry in entries for each in entry.get("postings", [])]
    assert sum(parse_amount(amount) for _, amount in postings) == 0


def test_others_read_while_one_writes(projection: Projection, tmp_path: Path) -> None:
    filled(projection)
    with closing(Records.view(tmp_path / "ledger")) as records:
        filled(projection, seed=2, blocks=2)
        assert verify(records).head == projection.head()


def test_several_blocks_are_taken_over_at_once(projection: Projection) -> None:
    history = History(Random(3), State())  # noqa: S311 - the same in each run
    projection.append([next_block(history) for _ in range(5)])
    verify(projection)
    assert projection.state().balances == history.state.balances
