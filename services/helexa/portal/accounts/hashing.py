# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Password hashes by argon2id, off the event loop."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

AT_ONCE = 2
"""Hashes in work: each takes 64 MiB and a core for tens of milliseconds."""


class Hasher:
    """Makes and checks hashes, with RFC 9106's second set of parameters unless told otherwise."""

    def __init__(self, argon2: PasswordHasher | None = None) -> None:
        """Hash as `argon2` does."""
        self._argon2 = argon2 or PasswordHasher()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """Return a new hash of `password`, with its own salt."""
        async with self._room:
            return await asyncio.to_thread(self._argon2.hash, password)

    async def verify(self, known: str | None, password: str) -> bool:
        """Whether `known` is the hash of `password`.

        Without one it takes as long, and the answer is no: who asks cannot tell the two apart.
        """
        if self._nobodys is None:
            self._nobodys = await self.hash("nobody's")
        async with self._room:
            found = await asyncio.to_thread(self._verify, known or self._nobodys, password)
        return found and known is not None

    def is_outdated(self, known: str) -> bool:
        """Whether `known` was made with other parameters than hashes are made with now."""
        return self._argon2.check_needs_rehash(known)

    def _verify(self, known: str, password: str) -> bool:
        try:
            return self._argon2.verify(known, password)
        except (VerificationError, InvalidHashError):
            return False
