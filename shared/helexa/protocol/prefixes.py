# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Digests of a prompt's prefixes, by which schedulers know who has read the same before.

A prompt has one digest for each of `LENGTHS` that it reaches, of everything from its start up to
there. So two prompts have a digest in common only if they have everything before it in common. The
digests of a prompt travel as one string of bytes, the shortest prefix first.
"""

import struct
from collections.abc import Collection
from hashlib import sha256
from itertools import takewhile

DIGEST_BYTES = 8
MOST_DIGESTS = 32
SHORTEST_BYTES = 512
"""What is shorter is read again as fast as it is found again."""


def _lengths() -> tuple[int, ...]:
    """Return steps of `SHORTEST_BYTES`, then of a quarter: what is found is most of what is shared.

    The last one is 1 MB, about 250,000 tokens.
    """
    lengths = [SHORTEST_BYTES]
    while len(lengths) < MOST_DIGESTS:
        step = max(SHORTEST_BYTES, lengths[-1] // 4)
        lengths.append(lengths[-1] + step - step % 64)
    return tuple(lengths)


LENGTHS = _lengths()
"""How many bytes each digest stands for."""


def digest_prefixes(prompt: bytes, seed: bytes = b"") -> bytes:
    """Return the digests of `prompt`'s prefixes; none where it is shorter than all `LENGTHS`.

    Args:
        prompt: in a form that stays the same when something is appended.
        seed: what a runtime reads before the prompt, such as tools.
    """
    size = len(prompt)
    if size < SHORTEST_BYTES:
        return b""
    running = sha256(seed)
    view = memoryview(prompt)
    digests = bytearray()
    begin = 0
    for end in takewhile(size.__ge__, LENGTHS):
        running.update(view[begin:end])
        digests += running.digest()[:DIGEST_BYTES]
        begin = end
    return bytes(digests)


def split_digests(digests: bytes) -> tuple[int, ...]:
    """Return the single digests, as numbers; an incomplete one at the end is dropped."""
    return struct.unpack_from(f"<{len(digests) // DIGEST_BYTES}Q", digests)


def join_digests(digests: Collection[int]) -> bytes:
    """Return single digests as they travel."""
    return struct.pack(f"<{len(digests)}Q", *digests)
