# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Commands for a portal's ledger, between the replicas of the portal."""

from helexa.protocol.messages.base import HotMessage


class PostRequest(HotMessage, frozen=True, kw_only=True):
    """A command. Sent again under its id, it is entered once and has the same answer."""

    command: bytes
    """In its canonical form; the replicas of a portal agree on what it says."""


class Posted(HotMessage, frozen=True, kw_only=True):
    """The entry that a command has made, or why there is none."""

    entry: bytes = b""
    """In its canonical form; empty for a refusal."""
    is_new: bool = False
    """Whether this request made it."""
    block: int = 0
    """The number of the block that holds it."""
    block_hash: bytes = b""
    time_ms: int = 0
    """When that block was made."""
    refusal: str = ""
    """The code of a refusal, which is no error: the ledger has answered."""
    message: str = ""
    available: int | None = None
    """What there would have been, in micro-units, where too much was asked for."""
