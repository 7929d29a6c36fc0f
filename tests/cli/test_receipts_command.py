# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa receipts`: what somebody with a file, or with the provider's book, can see and prove."""

import io
import json
from pathlib import Path

import pytest
from tests.cli.conftest import Helexa
from tests.portal.provider.shop import AMOUNT, Shop, book_in, served
from tests.protocol.receipting import (
    NOW_MS,
    PORTAL,
    PRICES,
    PROVIDER,
    STRANGER,
    Issuer,
    a_settlement,
    receipt_for,
)

from helexa.protocol.messages.receipts import SignedReceipt
from helexa.protocol.money import format_amount
from helexa.protocol.receipts.lines import read_line, write_line
from helexa.protocol.receipts.signing import sign_receipt

KEY = ("--portal-key", PORTAL.public)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """The book of a provider who has served three requests, one of them paid."""
    directory, shop = tmp_path / "book", Shop()
    with book_in(directory) as opened:
        served(opened, "gw.1", "gw.2", "gw.3")
        for request in ("gw.1", "gw.2", "gw.3"):
            opened.accept(shop.receipt(request), NOW_MS)
        opened.settle(a_settlement(paid=AMOUNT, settled=AMOUNT))
    return directory


@pytest.fixture
def exported(helexa: Helexa, book: Path, tmp_path: Path) -> Path:
    path = tmp_path / "receipts.jsonl"
    done = helexa("receipts", "export", "--book", str(book), "--output", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    return path


def write(path: Path, *receipts: SignedReceipt) -> Path:
    path.write_text("".join(write_line(each) + "\n" for each in receipts))
    return path


def test_a_book_lists_what_was_earned_and_what_is_paid(helexa: Helexa, book: Path) -> None:
    done = helexa("receipts", "list", "--book", str(book))
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert (head[0], head[-1]) == ("PORTAL", "PAID")
    assert [row[1:3] for row in rows] == [["1/1", "gw.1"], ["1/2", "gw.2"], ["1/3", "gw.3"]]
    assert [row[-1] for row in rows] == ["yes", "no", "no"]
    assert rows[0][4:8] == ["1000+500", "0.00045", "USD", "0.000439"]


def test_the_book_of_the_data_directory_is_the_default(helexa: Helexa, tmp_path: Path) -> None:
    with book_in(tmp_path / "site" / "provider"):
        pass
    done = helexa("receipts", "list", "--data-dir", str(tmp_path / "site"))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert helexa("receipts", "list", "--data-dir", str(tmp_path)).returncode == 2


def test_a_book_is_read_while_it_is_written(helexa: Helexa, tmp_path: Path) -> None:
    with book_in(tmp_path / "book") as opened:
        served(opened, "gw.1")
        opened.accept(Shop().receipt("gw.1"), NOW_MS)
        done = helexa("receipts", "verify", "--book", str(tmp_path / "book"), *KEY)
    assert (done.returncode, done.stdout) == (0, "1 good, 0 refused; earned: 0.000439 USD\n")


def test_one_portal_alone_can_be_listed(helexa: Helexa, book: Path, exported: Path) -> None:
    for source in (("--book", str(book)), ("--file", str(exported))):
        whole = helexa("receipts", "list", *source, "--portal", "default", "--json")
        none = helexa("receipts", "list", *source, "--portal", "other", "--json")
        assert (len(whole.stdout.splitlines()), none.stdout) == (3, "")


@pytest.mark.accepts("FEP-6", "NET-11")
def test_an_exported_file_is_verified_with_the_public_key_alone(
    helexa: Helexa, exported: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES.to_json()))
    done = helexa(
        *("receipts", "verify", "--file", str(exported), *KEY),
        *("--prices", str(prices), "--provider", PROVIDER.public),
    )
    total = format_amount(3 * AMOUNT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"3 good, 0 refused; earned: {total} USD\n"


def test_lines_are_read_from_the_standard_input(
    helexa: Helexa, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(exported.read_text() + "\n"))
    done = helexa("receipts", "verify", "--file", "-", *KEY)
    assert done.stdout.startswith("3 good")


def test_what_was_exported_is_exported_again_as_it_was(helexa: Helexa, exported: Path) -> None:
    done = helexa("receipts", "export", "--file", str(exported))
    assert done.stdout == exported.read_text()
    assert [write_line(read_line(line)) for line in done.stdout.splitlines()] == (
        exported.read_text().splitlines()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cost", "9.0"),
        ("amount", "0.00044"),
        ("model", "other"),
        ("number", True),
        ("attempt", "1"),
    ],
)
def test_what_people_read_must_be_what_was_signed(
    helexa: Helexa, exported: Path, field: str, value: object
) -> None:
    lines = exported.read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {field: value})
    exported.write_text("\n".join(lines))
    done = helexa("receipts", "verify", "--file", str(exported), *KEY)
    assert done.returncode == 1
    assert done.stdout.startswith(f"receipt 1: receipt_altered: {field} is ")
    assert "2 good, 1 refused" in done.stdout


def wrong_files() -> dict[str, list[SignedReceipt]]:
    """Return what may be wrong with a file of receipts, by the code that tells so."""
    issuer, other = Issuer(), Issuer()
    first, second = issuer.issue(receipt_for("gw.1")), issuer.issue(receipt_for("gw.2"))
    other.issue(receipt_for("gw.9"))
    hidden = other.issue(receipt_for("gw.8"))
    late = sign_receipt(receipt_for("gw.1", number=2, previous=b"x" * 32, cumulative=1), PORTAL)
    total = sign_receipt(receipt_for("gw.1", cumulative=1), PORTAL)
    return {
        "receipt_forged": [Issuer(signer=STRANGER).issue(receipt_for("gw.1"))],
        "receipt_altered": [first.model_copy(update={"signature": bytes(64)})],
        "receipt_replayed": [first, second, first],
        "receipt_forked": [first, hidden],
        "receipt_wrong_total": [total],
        "receipt_gap": [sign_receipt(receipt_for("gw.1", previous=b"x" * 32), PORTAL)],
        "receipt_over_amount": [Issuer().issue(receipt_for("gw.1", cost=451))],
        "receipt_under_amount": [Issuer().issue(receipt_for("gw.1", amount=1))],
        "receipt_wrong_price": [Issuer().issue(receipt_for("gw.1", price_version="0" * 64))],
        "receipt_foreign": [
            sign_receipt(receipt_for("gw.1", provider=STRANGER.public), PORTAL),
            late,
        ],
    }


@pytest.mark.accepts("LAB-13")
@pytest.mark.parametrize("code", wrong_files())
def test_each_thing_that_is_wrong_is_told_by_its_code(
    helexa: Helexa, tmp_path: Path, code: str
) -> None:
    file, prices = write(tmp_path / "wrong.jsonl", *wrong_files()[code]), tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES.to_json()))
    done = helexa(
        *("receipts", "verify", "--file", str(file), *KEY),
        *("--prices", str(prices), "--provider", PROVIDER.public),
    )
    assert done.returncode == 1
    assert f": {code}: " in done.stdout
    assert done.stdout.count(": receipt_") == 1


def test_a_fork_is_seen_in_whatever_order_the_lines_are(helexa: Helexa, tmp_path: Path) -> None:
    first, hidden = wrong_files()["receipt_forked"]
    file = write(tmp_path / "forked.jsonl", hidden, first)
    done = helexa("receipts", "verify", "--file", str(file), *KEY)
    assert "receipt 2: receipt_forked: " in done.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not json\n", "receipt 1: receipt_malformed: the line is not JSON"),
        ("[]\n", "receipt_malformed: the line is not a JSON object"),
        ("{}\n", "receipt_malformed: the line has no record"),
        ('{"record": "?", "key": "", "signature": ""}\n', "record is not base64"),
        ("\udcff\n", "receipt_malformed"),
        ("", "0 good, 0 refused; earned: nothing"),
    ],
)
def test_a_file_of_something_else_is_not_good(
    helexa: Helexa, tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "file").write_bytes(text.encode(errors="surrogateescape"))
    done = helexa("receipts", "verify", "--file", "file", *KEY)
    assert (done.returncode, done.stderr) == (1, "")
    assert told in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("verify",), "the following arguments are required: --portal-key"),
        (("verify", "--portal-key", "SU"), "--portal-key: 'SU' is not a public key"),
        (("verify", *KEY, "--provider", "x"), "--provider: 'x' is not a public key"),
        (("verify", *KEY, "--file", "missing"), "missing cannot be read: No such file"),
        (("verify", *KEY, "--prices", "missing"), "missing cannot be read: No such file"),
        (("verify", *KEY, "--prices", "empty"), "empty is not JSON"),
        (("verify", *KEY, "--prices", "list"), "list: a price list is an object"),
        (("list", "--book", "missing"), "there is no provider's book in missing"),
        (("list", "--book", "a", "--file", "b"), "not allowed with argument"),
        (("export", "--file", "empty", "--output", "no/file"), "no/file cannot be written"),
        ((), "the following arguments are required: ACTION"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(
    helexa: Helexa, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "list").write_text("[]")
    done = helexa("receipts", *words)
    assert done.returncode == 2
    [said] = done.stderr.splitlines()
    assert told in said
