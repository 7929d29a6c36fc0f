# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Why a ledger does not enter what it is asked to. Pure."""

from enum import StrEnum


class Code(StrEnum):
    """Why; these codes are stable."""

    MALFORMED = "malformed"
    CONFLICT = "conflict"
    """Another command was entered under this id."""
    INSUFFICIENT_FUNDS = "insufficient_funds"
    BUDGET_EXCEEDED = "budget_exceeded"
    IN_DEBT = "in_debt"
    """The user owes the portal money: nothing new is held before that is paid."""
    UNKNOWN_HOLD = "unknown_hold"
    HOLD_OPEN = "hold_open"
    """A late capture is for a hold that is closed."""
    HOLD_CLOSED = "hold_closed"
    """Another command has closed the hold."""
    OVER_HOLD = "over_hold"
    """More than what is left of the hold."""
    ALREADY_CAPTURED = "already_captured"
    """This attempt has been paid."""
    NOT_LATER = "not_later"
    """The hold already lasts as long."""
    NOT_EXPIRED = "not_expired"
    EXPIRED = "expired"
    UNKNOWN_GRANT = "unknown_grant"
    UNKNOWN_DEPOSIT = "unknown_deposit"
    OVER_DEPOSIT = "over_deposit"
    """More than what is left of the deposit."""
    UNKNOWN_PAYOUT = "unknown_payout"
    PAYOUT_ENDED = "payout_ended"
    """Another command has ended the payout."""
    OUT_OF_RANGE = "out_of_range"
    """A balance would be no 64-bit number."""


class Refusal(Exception):  # noqa: N818 - an answer, which only the rules raise
    """The ledger says no. Nothing was entered; the same command may be accepted later."""

    def __init__(self, code: Code, message: str, *, available: int | None = None) -> None:
        """Say why.

        Args:
            code: For programs.
            message: For people.
            available: What there would have been, in micro-units, where too much was asked for.
        """
        super().__init__(message)
        self.code = code
        self.message = message
        self.available = available
