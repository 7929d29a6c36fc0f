# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where a process connects and as whom."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to connect and as whom."""

    servers: tuple[str, ...]
    name: str
    """Shown in the server's connection list."""
    seed: str | None = field(default=None, repr=False)
    """The user's nkey seed; `None` connects without credentials."""
    inbox_prefix: str = "_INBOX"
    may_be_refused: bool = False
    """A refusal is no news: who connects will ask to be let in."""
