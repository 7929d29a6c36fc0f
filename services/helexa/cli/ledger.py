# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa ledger`: look at a portal's ledger without the portal, and put back what was lost."""

import argparse
import asyncio
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from helexa.bus.client import Bus
from helexa.bus.journal import Journal
from helexa.bus.resources import ensure_resources
from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.portal.ledger.audit import exported, verify
from helexa.portal.ledger.errors import LedgerError
from helexa.portal.ledger.records import Line, Records
from helexa.portal.ledger.restoring import restore
from helexa.portal.settings import PortalSettings
from helexa.process.durability import durability_of
from helexa.process.lifecycle import EXIT_FAILED
from helexa.process.settings import load_settings
from helexa.protocol import resources
from helexa.protocol.money import format_amount
from helexa.protocol.subjects import Role
from helexa.site.connect import data_dir_of, site_connection

EARLIEST = "1970-01-01"
LATEST = "9999-12-31"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, and where the ledger is."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("verify", help="hash, fold and add up everything again")
    told = actions.add_parser("statement", help="what happened on an account, with its balances")
    told.add_argument("account", help="its whole name, as user:ID:avail:USD")
    for flag, default, meaning in (
        ("--since", EARLIEST, "the first day, in UTC"),
        ("--until", LATEST, "the day after the last one"),
    ):
        told.add_argument(flag, metavar="DATE", type=_day, default=default, help=meaning)
    actions.add_parser("export", help="print each block as a line of JSON")
    restoring = actions.add_parser(
        "restore", help="put the blocks back that the site's servers have lost"
    )
    add_settings_flags(restoring, PortalSettings, only=("nats_url",))
    for action in actions.choices.values():
        action.add_argument(
            "--portal", metavar="ID", default=resources.DEFAULT_PORTAL, help="the portal's id"
        )
        action.add_argument(
            "--directory", metavar="PATH", help="the copy; default: the one in the data directory"
        )
        add_settings_flags(action, PortalSettings, only=("data_dir",))


def run(arguments: argparse.Namespace) -> int:
    """Do it.

    Raises:
        SettingsError: the servers or their key are not known.
        UnavailableError: the servers cannot be reached.
    """
    settings = load_settings(PortalSettings, settings_flags(arguments, PortalSettings)).values
    place = data_dir_of(settings).ledger(arguments.portal)
    try:
        with closing(Records.view(Path(arguments.directory or place))) as records:
            if arguments.action == "restore":
                return asyncio.run(_restore(settings, arguments.portal, records))
            return _ACTIONS[arguments.action](records, arguments)
    except LedgerError as error:
        sys.stderr.write(f"helexa: {error}\n")
        return EXIT_FAILED


def _verify(records: Records, arguments: argparse.Namespace) -> int:
    del arguments
    found = verify(records)
    sys.stdout.write(
        f"{records.ledger}: {found.head.number} blocks, {found.entries} entries, "
        f"{found.accounts} accounts with a balance; nothing is wrong\n"
        f"head: block {found.head.number}, {found.head.hash.hex()}\n"
    )
    return 0


def _statement(records: Records, arguments: argparse.Namespace) -> int:
    found = records.statement(arguments.account, arguments.since, arguments.until)
    rows = [f"{'':20}  {'':>20}  {format_amount(found.opening):>20}  opening balance"]
    rows += map(_row, found.lines)
    rows.append(f"{'':20}  {'':>20}  {format_amount(found.closing):>20}  closing balance")
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


def _export(records: Records, arguments: argparse.Namespace) -> int:
    del arguments
    sys.stdout.writelines(f"{line}\n" for line in exported(records))
    return 0


_ACTIONS = {"verify": _verify, "statement": _statement, "export": _export}


async def _restore(settings: PortalSettings, portal: str, records: Records) -> int:
    async with Bus(site_connection(settings, Role.PORTAL, instance="restore")) as bus:
        await ensure_resources(bus, Role.PORTAL, durability_of(settings))
        count = await restore(Journal(bus, resources.ledger_of(portal)), records)
    sys.stdout.write(f"{records.ledger}: {count} blocks were put back\n")
    return 0


def _row(line: Line) -> str:
    at = datetime.fromtimestamp(line.time_ms / 1000, UTC)
    amounts = f"{format_amount(line.amount):>20}  {format_amount(line.balance):>20}"
    return f"{at:%Y-%m-%dT%H:%M:%SZ}  {amounts}  {line.kind} {line.id}"


def _day(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2026-11-30") from error
