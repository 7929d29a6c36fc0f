# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The ids of commands that others look up. Pure."""


def deposit_id(rail: str, reference: str) -> str:
    """Return the id of a deposit."""
    return f"deposit:{rail}:{reference}"


def hold_id(hold: str) -> str:
    """Return the id of the command that takes a hold."""
    return f"hold:{hold}"


def capture_id(hold: str, attempt: int) -> str:
    """Return the id of a capture that leaves its hold open."""
    return f"capture:{attempt}:{hold}"


def closing_id(hold: str) -> str:
    """Return the one id of whatever closes a hold: the last capture or a release."""
    return f"close:{hold}"


def settlement_id(payout: str) -> str:
    """Return the one id of whatever ends a payout."""
    return f"settle:{payout}"
