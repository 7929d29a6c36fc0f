# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What users are sent, and by whom."""

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class LetterKind(StrEnum):
    """What a letter is about."""

    VERIFY = "verify"
    """Show that the address is yours. It has a secret."""
    RESET = "reset"
    """Set a new password. It has a secret."""
    KNOWN = "known"
    """Somebody has signed up with this address, which has an account."""
    PASSWORD_CHANGED = "password_changed"


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter. Its words, language and links are the business of who delivers it."""

    kind: LetterKind
    portal: str
    address: str
    name: str = ""
    secret: str = ""


class Postman(Protocol):
    """Delivers letters."""

    def post(self, letter: Letter) -> None:
        """Take a letter, and return at once: how long delivery takes must not show that it is."""


class LetterFile:
    """Appends letters to a file that only its owner can read: for development."""

    def __init__(self, path: Path) -> None:
        """Write to `path`, one letter in JSON a line."""
        self._path = path

    def post(self, letter: Letter) -> None:
        """Append a letter."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(letter)) + "\n")
