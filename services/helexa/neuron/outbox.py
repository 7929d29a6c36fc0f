# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The frames of one attempt: numbered, published and kept, so that a lost one can be sent again."""

import hashlib
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from helexa.protocol.errors import UnavailableError
from helexa.protocol.frames import FrameKind, pack_data, pack_frame

PART_BYTES = 512 * 1024
"""Of an answer that is not a stream, at most so much goes into one frame."""

FRAME_BYTES = 160
"""What a kept frame costs beside its bytes, which are often not many more."""

MAX_KEPT_BYTES = 8 * 1024 * 1024
"""Of one attempt, at most so much is kept; the oldest frames go first."""

Clock = Callable[[], float]


KeptFrame = tuple[int, bytes, float]
"""A frame as it was published: its number, its bytes, and when, on the monotonic clock."""


class Wire(Protocol):
    """What frames are published on."""

    @property
    def is_behind(self) -> bool:
        """Whether it has more to send than it should."""

    def send_raw(self, subject: str, data: bytes) -> None:
        """Publish without waiting.

        Raises:
            UnavailableError: there is no connection.
        """

    async def catch_up(self) -> None:
        """Return when it is not behind any more."""


class Store(Protocol):
    """What frames are kept at the cost of."""

    def charge(self, outbox: "Outbox", size: int) -> None:
        """Note that `outbox` keeps `size` bytes more, or fewer, and make room if that is due."""


class Outbox:
    """Numbers and publishes frames on one token subject."""

    __slots__ = (
        "_clock",
        "_first_event",
        "_hash",
        "_last_part",
        "_next_event",
        "_next_seq",
        "_store",
        "_wire",
        "attempt",
        "is_behind",
        "kept",
        "kept_bytes",
        "output_bytes",
        "published_at_s",
        "subject",
    )

    def __init__(
        self,
        wire: Wire,
        subject: str,
        store: Store,
        *,
        attempt: int,
        first_seq: int = 0,
        first_event: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        """Number frames from `first_seq` on and events from `first_event` on; tell `store`."""
        self.subject = subject
        self.attempt = attempt
        self.is_behind = False
        """Whether more waited to be sent than should when the last frame was published."""
        self.kept: deque[KeptFrame] = deque()
        self.kept_bytes = 0
        self.output_bytes = 0
        self.published_at_s = clock()
        """When the last frame went out; at first, when the attempt began."""
        self._wire = wire
        self._clock = clock
        self._store = store
        self._next_seq = first_seq
        self._first_event = self._next_event = first_event
        self._hash = hashlib.sha256()
        self._last_part: tuple[bytes, ...] = ()

    @property
    def events(self) -> int:
        """Events published in this attempt."""
        return self._next_event - self._first_event

    @property
    def output_sha256(self) -> str:
        """The digest of everything published for the client, in hexadecimal."""
        return self._hash.hexdigest()

    async def catch_up(self) -> None:
        """Wait until no more waits to be sent than should."""
        if self._wire.is_behind:
            await self._wire.catch_up()
        self.is_behind = False

    def send_events(self, events: list[bytes]) -> None:
        """Publish `events` in one frame, as a client reads them."""
        first = self._next_event
        count = len(events)
        if count == 1:
            text = b"id: %d\ndata: %b\n\n" % (first, events[0])
        else:
            numbered = enumerate(events, first)
            text = b"".join([b"id: %d\ndata: %b\n\n" % each for each in numbered])
        self._next_event += count
        self._hash.update(text)
        self.output_bytes += len(text)
        self._send(pack_data(self.attempt, self._next_seq, first, count, text))

    def send_body(self, answer: bytes) -> None:
        """Publish an answer that is not a stream, in parts; the last one goes with the end."""
        self._hash.update(answer)
        self.output_bytes += len(answer)
        parts = [answer[at : at + PART_BYTES] for at in range(0, len(answer), PART_BYTES)]
        for part in parts[:-1]:
            self._pack_and_send(FrameKind.BODY, part)
        self._last_part = tuple(parts[-1:])

    def send_beat(self, progress: float | None = None) -> None:
        """Publish that the work goes on."""
        self._pack_and_send(FrameKind.BEAT, progress)

    def send_end(self, kind: FrameKind, *payload: object) -> None:
        """Publish the terminal frame."""
        last_part = self._last_part if kind == FrameKind.DONE else ()
        self._last_part = ()
        self._pack_and_send(kind, *payload, *last_part)

    async def send_again(self, since_s: float) -> int:
        """Publish the kept frames of `since_s` and later once more; return how many."""
        again = [data for _, data, at_s in self.kept if at_s >= since_s]
        for data in again:
            self._wire.send_raw(self.subject, data)
            await self.catch_up()
        return len(again)

    def slice(self, from_seq: int, to_seq: int | None, max_bytes: int) -> tuple[list[bytes], bool]:
        """Return kept frames from `from_seq` up to and without `to_seq`, and whether none is gone.

        The list ends early, after at least one frame, where it would pass `max_bytes`.
        """
        found: list[bytes] = []
        size = 0
        for seq, data, _ in self.kept:
            if seq < from_seq or (to_seq is not None and seq >= to_seq):
                continue
            if found and size + len(data) > max_bytes:
                break
            found.append(data)
            size += len(data)
        oldest = self.kept[0][0] if self.kept else self._next_seq
        return found, oldest <= from_seq

    def drop_oldest(self, size: int) -> None:
        """Forget frames from the oldest on until `size` bytes are free or none is left."""
        dropped = 0
        while self.kept and dropped < size:
            dropped += FRAME_BYTES + len(self.kept.popleft()[1])
        self.kept_bytes -= dropped
        self._store.charge(self, -dropped)

    def _pack_and_send(self, kind: FrameKind, *payload: object) -> None:
        self._send(pack_frame(self.attempt, self._next_seq, self._next_event, kind, *payload))

    def _send(self, data: bytes) -> None:
        now_s = self._clock()
        self.kept.append((self._next_seq, data, now_s))
        self._next_seq += 1
        self.published_at_s = now_s
        size = FRAME_BYTES + len(data)
        self.kept_bytes += size
        self._store.charge(self, size)
        if self.kept_bytes > MAX_KEPT_BYTES:
            self.drop_oldest(self.kept_bytes - MAX_KEPT_BYTES)
        try:
            self._wire.send_raw(self.subject, data)
        except UnavailableError:
            # It is kept, and goes out again when the link is back.
            return
        self.is_behind = self._wire.is_behind
