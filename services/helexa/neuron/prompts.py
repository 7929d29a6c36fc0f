# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which prompts each model's runtime has read lately, as the neuron reports it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from helexa.protocol.prefixes import DIGEST_BYTES, join_digests, split_digests

MOST_REPORTED = 128
"""Digests in one report, over all models: 1 KB."""
MOST_KNOWN = 4096
"""Digests of a model's prompts that are remembered, to see what new prompts share with them."""


@dataclass(slots=True)
class _Read:
    """What one start of a runtime has read."""

    runtime: object
    known: dict[int, None] = field(default_factory=dict)
    """Every prefix of every prompt, the newest last."""
    marks: dict[int, None] = field(default_factory=dict)
    """Those that are reported: whole prompts, and where a prompt left the way of earlier ones."""
    report: bytes | None = b""


class RecentPrompts:
    """The prompts of all models of a host.

    To report every prefix of every prompt would take several times the room: what lies between the
    marks of a prompt says nothing that they do not say.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._models: dict[str, _Read] = {}

    def take(self, model: str, runtime: object, prefix_digests: bytes) -> None:
        """Note that `runtime` reads a prompt; what another runtime of `model` has read is gone."""
        read = self._models.get(model)
        if read is None or read.runtime is not runtime:
            read = self._models[model] = _Read(runtime)
        digests = split_digests(prefix_digests)
        shared = next((each for each in reversed(digests) if each in read.known), None)
        _renew(read.known, digests, MOST_KNOWN)
        marked = digests[-1:] if shared is None else (shared, *digests[-1:])
        _renew(read.marks, marked, MOST_REPORTED)
        read.report = None

    def recent(self, model: str, runtime: object | None) -> bytes:
        """Return the digests to report of `model`, the newest last.

        Args:
            model: its name.
            runtime: the one that it has now.
        """
        read = self._models.get(model)
        if read is None:
            return b""
        if read.runtime is not runtime:
            del self._models[model]
            return b""
        if read.report is None:
            read.report = join_digests(read.marks)
        most = max(1, MOST_REPORTED // len(self._models))
        return read.report[-most * DIGEST_BYTES :]


def _renew(kept: dict[int, None], digests: Sequence[int], most: int) -> None:
    """Make `digests` the newest of `kept`, and let the oldest go."""
    for each in digests:
        kept.pop(each, None)
        kept[each] = None
    while len(kept) > most:
        del kept[next(iter(kept))]
