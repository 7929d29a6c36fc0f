# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a command comes to: the only maker of entries. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from helexa.portal.ledger import holds, transfers
from helexa.portal.ledger.commands import (
    COMMANDS,
    AnyCommand,
    Capture,
    Chargeback,
    Command,
    Deposit,
    ExpireGrant,
    Extend,
    FailPayout,
    Grant,
    Hold,
    LateCapture,
    Refund,
    Release,
    ReservePayout,
    ReturnPayout,
    SetBudget,
    SettlePayout,
    digest_of,
)
from helexa.portal.ledger.draft import Draft
from helexa.portal.ledger.entries import Entry, EntryError, merged
from helexa.portal.ledger.refusals import Code, Refusal
from helexa.portal.ledger.state import State
from helexa.protocol.errors import MalformedError

Rule = Callable[[State, Any, int], Draft]
RULES: dict[type[Command], Rule] = {
    Deposit: transfers.deposit,
    Refund: transfers.refund,
    Chargeback: transfers.chargeback,
    Grant: transfers.grant,
    ExpireGrant: transfers.expire_grant,
    Hold: holds.hold,
    Extend: holds.extend,
    Capture: holds.capture,
    Release: holds.release,
    LateCapture: holds.late_capture,
    ReservePayout: transfers.reserve_payout,
    SettlePayout: transfers.settle_payout,
    FailPayout: transfers.fail_payout,
    ReturnPayout: transfers.return_payout,
    SetBudget: holds.set_budget,
}


@dataclass(frozen=True, slots=True)
class Entered:
    """A command's entry."""

    entry: Entry
    is_new: bool
    """Whether this call made it; otherwise the same command was entered before."""


def plan(state: State, command: AnyCommand, time_ms: int) -> Entered | Refusal:
    """Enter `command` at `time_ms`, and return its entry or why there is none."""
    try:
        return enter(state, COMMANDS.pack(command), time_ms)
    except MalformedError as error:
        return Refusal(Code.MALFORMED, error.message)


def enter(state: State, data: bytes, time_ms: int) -> Entered | Refusal:
    """Do the same for a command's canonical bytes."""
    try:
        command = COMMANDS.unpack(data)
    except MalformedError as error:
        return Refusal(Code.MALFORMED, error.message)
    digest = digest_of(data)
    known = state.find(command.id)
    if known is not None:
        return Entered(known, is_new=False) if known.digest == digest else _conflict(command)
    try:
        draft = RULES[type(command)](state, command, time_ms)
        entry = _entry(command, digest, draft)
        state.apply(entry)
    except Refusal as refusal:
        return refusal
    except EntryError as error:
        # The rules keep every floor; what is left is a number that grows too large.
        return Refusal(Code.OUT_OF_RANGE, str(error))
    return Entered(entry, is_new=True)


def _entry(command: Command, digest: bytes, draft: Draft) -> Entry:
    return Entry(
        kind=draft.kind,
        id=command.id,
        digest=digest,
        postings=merged(draft.moves),
        opened=draft.opened,
        closed=draft.closed,
        facts={name: fact for name, fact in draft.facts.items() if fact != ""},
    )


def _conflict(command: Command) -> Refusal:
    if isinstance(command, Capture | Release) and command.id.startswith("close:"):
        return Refusal(Code.HOLD_CLOSED, "The hold has been closed by another command.")
    if isinstance(command, SettlePayout | FailPayout):
        return Refusal(Code.PAYOUT_ENDED, "The payout has been ended by another command.")
    return Refusal(Code.CONFLICT, f"Another command was entered as {command.id}.")
