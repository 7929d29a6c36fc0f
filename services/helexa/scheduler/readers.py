# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who has read a prompt's prefix, as the neurons report it."""

from collections.abc import Sequence

from helexa.protocol.prefixes import DIGEST_BYTES, split_digests
from helexa.scheduler.candidates import Candidate

MOST_REPORTED = 256
"""Digests that are taken of one report."""
MOST_FOUND = 16
"""Readers of a prompt's prefixes that are looked at, those of the longest ones."""


class Readers:
    """The readers of every prefix of one model's prompts."""

    def __init__(self) -> None:
        """Begin without any."""
        self._of: dict[int, set[Candidate]] = {}
        self._reported: dict[Candidate, tuple[bytes, frozenset[int]]] = {}

    def report(self, candidate: Candidate, prefix_digests: bytes) -> None:
        """Take what a neuron says that it has read; it stands for all that it said before."""
        before, held = self._reported.get(candidate, (b"", frozenset[int]()))
        if before == prefix_digests:
            return
        newest = prefix_digests[-MOST_REPORTED * DIGEST_BYTES :]
        digests = frozenset(split_digests(newest))
        for each in held - digests:
            readers = self._of[each]
            readers.discard(candidate)
            if not readers:
                del self._of[each]
        for each in digests - held:
            self._of.setdefault(each, set()).add(candidate)
        if digests:
            self._reported[candidate] = (prefix_digests, digests)
        else:
            self._reported.pop(candidate, None)

    def find(self, digests: Sequence[int]) -> dict[Candidate, int]:
        """Return who has read how many of the prefixes of a prompt, longest first."""
        found: dict[Candidate, int] = {}
        for depth in range(len(digests), 0, -1):
            for candidate in self._of.get(digests[depth - 1], ()):
                found.setdefault(candidate, depth)
                if len(found) == MOST_FOUND:
                    return found
        return found
