# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One running answer at one reader: frames go in as they arrive, and come out in order."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from helexa.protocol.errors import HelexaError
from helexa.protocol.fold import Fold
from helexa.protocol.frames import Frame, FrameKind
from helexa.protocol.naming import home_of, request_token


class Answer:
    """An answer that somebody here reads.

    Frames are put in by the bus's callback and taken out by the one task that serves the client;
    `wait` lets that task sleep until there is something to do.
    """

    heard_at: float
    """When the last frame came, or the last attempt began."""
    control_at: float
    control_sequence: int | None = None
    """Place of the newest control frame in the log, where it is known."""
    events = 0
    """Events that have come out, which is the number of the next one."""
    next_seq = 0
    """Number of the frame after the last one that came out, terminal ones apart."""
    client_gone = False
    failure: HelexaError | None = None
    """Why this reader ends, whatever frames may come."""
    is_accepted = False
    """Whether the neuron of the last attempt has it, so that it can be asked about it."""
    is_due = False
    """Whether it is time to look at the clock."""
    needs_owner = False
    """Whether somebody has to look after it whose owner may be gone, however much comes."""
    too_slow = False
    """Whether the client is further behind than it may be."""
    cut: Callable[[], object] | None = None
    """Ends the task that serves the client, which may be stuck in a write."""
    interrupt: Callable[[], object] | None = None
    """Ends what that task waits for before there is anything to read."""
    relay: Callable[[Frame], bool] | None = None
    """Hands on a frame at once, if it can, while the task that serves the client waits."""
    on_end: Callable[[], object] | None = None
    """Called when the last attempt has ended, before any client has been told."""
    _buffered = 0
    _waiter: asyncio.Future[None] | None = None

    def __init__(self, request_id: str, *, buffer_bytes: int) -> None:
        """Begin to read the answer to `request_id`."""
        self.request_id = request_id
        self.token = request_token(request_id)
        self.home = home_of(request_id) or ""
        self.fold = Fold()
        self.frames: deque[Frame] = deque()
        self.control: list[bytes] = []
        """What was published under `ctl`, to be published anew before the log forgets it."""
        self.heard_at = self.control_at = time.monotonic()
        self._buffer_bytes = buffer_bytes

    def take(self, author: str, frame: Frame) -> None:
        """Take in one frame as it arrives."""
        before = self.fold.current
        released = self.fold.accept(author, frame)
        current = self.fold.current
        if current is not None and current is not before:
            self._drop_void(current.after_seq)
        if current is not None and author == current.author and frame.attempt == current.attempt:
            self.heard_at = time.monotonic()
            # Frames can come before the reply that says that the request was accepted.
            self.is_accepted = True
        if not released:
            return
        if self.relay is not None and not self.frames and self.relay(released[0]):
            self.next_seq = released.pop(0).seq + 1
        if released:
            self._keep(released)

    def drain(self) -> list[Frame]:
        """Return the frames that have come since the last call."""
        drained = list(self.frames)
        if drained:
            self.frames.clear()
            last = next((each for each in reversed(drained) if not each.is_terminal), None)
            if last is not None:
                self.next_seq = last.seq + 1
            self._buffered = 0
        return drained

    def _keep(self, frames: list[Frame]) -> None:
        for each in frames:
            if each.kind in (FrameKind.DATA, FrameKind.BODY):
                self._buffered += len(text_of(each))
        self.frames.extend(frames)
        if frames[-1].is_terminal and self.on_end is not None:
            self.on_end()
        if self._buffered > self._buffer_bytes:
            self._cut_off()
        self.wake()

    async def wait(self) -> None:
        """Return when something has happened."""
        if self.frames or self.is_due or self.failure is not None or self.client_gone:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def wake(self) -> None:
        """Let the reading task look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def has_reason_to_stop(self) -> bool:
        """Whether this reader ends, whatever comes."""
        return self.client_gone or self.failure is not None

    def hang_up(self) -> None:
        """Note that the client is gone."""
        self.client_gone = True
        self._stop_waiting()

    def fail(self, error: HelexaError) -> None:
        """End this reader by `error`."""
        if self.failure is None:
            self.failure = error
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self.interrupt is not None:
            # Once: a second cancellation would be somebody else's.
            interrupt, self.interrupt = self.interrupt, None
            interrupt()
        self.wake()

    def _cut_off(self) -> None:
        if self.cut is not None and not self.too_slow:
            self.too_slow = True
            self.cut()

    def begin_attempt(self, author: str, *, anew: bool) -> int:
        """Assign the next attempt to `author` and return the number of the frame that it follows.

        Args:
            author: The neuron's encoded id.
            anew: Void everything that came before, which nobody has been sent.
        """
        if anew:
            self.events = self.next_seq = 0
        # What has come and not come out is void: frames of a neuron that was given up too early,
        # and the terminal frame of a failed attempt.
        after = self.next_seq - 1
        self.fold.assign(author, after)
        self._drop_void(after)
        self.is_accepted = False
        self.heard_at = time.monotonic()
        return after

    def _drop_void(self, after_seq: int) -> None:
        """Drop what has not come out and no longer counts, as an attempt begins after it."""
        if self.frames:
            kept = [each for each in self.frames if each.seq <= after_seq and not each.is_terminal]
            self.frames = deque(kept)


def text_of(frame: Frame) -> bytes:
    """Return the bytes of a `DATA` or `BODY` frame; nothing of any other."""
    if frame.kind == FrameKind.DATA and len(frame.payload) > 1:
        value = frame.payload[1]
    elif frame.kind == FrameKind.BODY and frame.payload:
        value = frame.payload[0]
    else:
        return b""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else b""


def events_in(frame: Frame) -> int:
    """Return how many events a frame holds."""
    if frame.kind != FrameKind.DATA or not frame.payload:
        return 0
    count = frame.payload[0]
    return count if isinstance(count, int) else 0
