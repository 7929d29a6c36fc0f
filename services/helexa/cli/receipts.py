# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa receipts`: what was earned or paid, and whether it is proven."""

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from helexa.cli.flags import add_settings_flags
from helexa.cli.reach import ClientSettings, read_client_settings
from helexa.cli.views import table
from helexa.portal.provider.reading import read_book
from helexa.process.settings import SettingsError
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.receipts import Receipt, SignedReceipt
from helexa.protocol.money import format_amount
from helexa.protocol.price_list import PriceList
from helexa.protocol.receipts.audit import Audit
from helexa.protocol.receipts.lines import read_line, shown, write_line
from helexa.protocol.receipts.signing import decode_record
from helexa.site.connect import data_dir_of
from helexa.site.keys import is_public_key, verify

HEAD = ("PORTAL", "NUMBER", "REQUEST", "MODEL", "TOKENS", "COST", "EARNED", "TIME", "PAID")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, with which receipts."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list receipts, which are not verified by that")
    listing.add_argument("--json", action="store_true", help="print everything that they say")
    verifying = actions.add_parser("verify", help="verify receipts with the portal's public key")
    verifying.add_argument(
        "--portal-key",
        metavar="KEY",
        action="append",
        required=True,
        help="a public key that the portal signs with, U…; repeatable",
    )
    verifying.add_argument("--provider", metavar="KEY", help="the provider whom all must be for")
    verifying.add_argument(
        "--prices", metavar="FILE", help="a price list as JSON, by which all must be made"
    )
    exporting = actions.add_parser("export", help="write receipts with their proofs, one a line")
    exporting.add_argument("--output", metavar="FILE", help="where to; default: standard output")
    for each in (listing, exporting):
        each.add_argument("--portal", metavar="ID", help="the receipts of one portal alone")
    for each in (listing, verifying, exporting):
        _add_source_arguments(each)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "verify": _verify,
        "export": _export,
    }
    return actions[arguments.action](arguments)


def _add_source_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--file", metavar="FILE", help="read exported receipts; '-' is the standard input"
    )
    source.add_argument(
        "--book", metavar="PATH", help="the provider's book; default: that of the data directory"
    )
    add_settings_flags(parser, ClientSettings, only=("data_dir",))


def _list(arguments: argparse.Namespace) -> int:
    receipts = ((decode_record(Receipt, each.record), paid) for each, paid in _receipts(arguments))
    if arguments.json:
        for receipt, _ in receipts:
            sys.stdout.write(json.dumps(shown(receipt)) + "\n")
        return 0
    sys.stdout.write(table(HEAD, [_row(receipt, is_paid) for receipt, is_paid in receipts]))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    with _output(arguments.output) as output:
        for signed, _ in _receipts(arguments):
            output.write(write_line(signed) + "\n")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    audit = Audit(
        verify,
        frozenset(_public_key(key, "--portal-key") for key in arguments.portal_key),
        _public_key(arguments.provider, "--provider") if arguments.provider else None,
        _prices(arguments.prices) if arguments.prices else None,
    )
    good, refused, earned = 0, 0, Counter[str]()
    for number, line in enumerate(_lines(arguments), start=1):
        try:
            receipt = audit.check(line)
        except HelexaError as error:
            refused += 1
            sys.stdout.write(f"receipt {number}: {error.code}: {error.message}\n")
        else:
            good += 1
            earned[receipt.currency] += receipt.amount
    sums = [f"{format_amount(total)} {currency}" for currency, total in sorted(earned.items())]
    sys.stdout.write(f"{good} good, {refused} refused; earned: {', '.join(sums) or 'nothing'}\n")
    return 0 if good and not refused else 1


def _receipts(arguments: argparse.Namespace) -> Iterator[tuple[SignedReceipt, bool | None]]:
    """Yield each receipt that is wanted, and whether it is paid, as far as that is known."""
    found: Iterator[tuple[SignedReceipt, bool | None]]
    if arguments.file is None:
        yield from read_book(_book(arguments), arguments.portal)
        return
    found = ((read_line(line), None) for line in _lines(arguments))
    for signed, paid in found:
        if arguments.portal in (None, decode_record(Receipt, signed.record).portal):
            yield signed, paid


def _lines(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.file is None:
        yield from (write_line(signed) for signed, _ in read_book(_book(arguments)))
    elif arguments.file == "-":
        yield from filter(str.strip, sys.stdin)
    else:
        with _readable(arguments.file) as file:
            yield from filter(str.strip, file)


def _book(arguments: argparse.Namespace) -> Path:
    if arguments.book:
        return Path(arguments.book)
    return data_dir_of(read_client_settings(arguments)).provider_book


def _row(receipt: Receipt, is_paid: bool | None) -> tuple[str, ...]:  # noqa: FBT001 - a column
    time = datetime.fromtimestamp(receipt.time_ms / 1000).astimezone()
    tokens = f"{receipt.prompt_tokens}+{receipt.completion_tokens}"
    return (
        receipt.portal,
        f"{receipt.epoch}/{receipt.number}",
        receipt.request_id,
        receipt.model,
        tokens,
        f"{format_amount(receipt.cost)} {receipt.currency}",
        format_amount(receipt.amount),
        f"{time:%Y-%m-%d %H:%M:%S}",
        "-" if is_paid is None else "yes" if is_paid else "no",
    )


def _public_key(text: str, flag: str) -> str:
    if not is_public_key(text):
        raise SettingsError(f"{flag}: {text!r} is not a public key (U…, 56 characters)")
    return text


def _prices(path: str) -> PriceList:
    with _readable(path) as file:
        try:
            return PriceList.from_json(json.load(file))
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{path} is not JSON") from error
        except HelexaError as error:
            raise SettingsError(f"{path}: {error.message}") from error


@contextlib.contextmanager
def _readable(path: str) -> Iterator[TextIO]:
    try:
        # What is no text is then no receipt either, and is told so with its line.
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            yield file
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        with Path(path).open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
