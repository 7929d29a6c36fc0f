# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Names of inboxes and replies that nobody can guess."""

import secrets


class ReplyTokens:
    """Takes the place of nats-py's counter, whose next value anybody who has seen one can tell."""

    def next(self) -> bytearray:
        """Return 22 characters, the length that nats-py cuts by."""
        return bytearray(secrets.token_urlsafe(16).encode())
