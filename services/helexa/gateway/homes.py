# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What comes and what is kept of answers that are resumed here: each alone, or a home's together.

A few resumes each have a subscription and read what they need. When a gateway dies, all its clients
come at once: then one subscription takes the frames of all its answers, the log is read once into
memory, and every resume is served from there. Either way the subscription comes first: what is in
neither does not exist yet.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helexa.bus.batches import Kept
from helexa.bus.client import Bus
from helexa.bus.tokenlog import read_log, read_matching
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.subjects import pattern_of, subject_of

_log = logging.getLogger(__name__)

TOGETHER_FROM = 10
"""From so many resumes of one home on, which come at once, they are served together."""
AT_ONCE_S = 2.0
KEEP_S = 10.0
"""What was read for many is kept for so long, and what came meanwhile. Then it is read anew if many
still come: while only somebody does, it would grow with everything that is answered."""
MAX_KEPT_BYTES = 128 * 1024 * 1024
FRAME_OVERHEAD_BYTES = 300
"""Memory that a kept frame takes beside its own bytes."""
LONE_READS = 8
"""Reads of single answers at once: the more there are, the longer each one takes the server."""

Take = Callable[[str, bytes], None]
"""Takes in one frame: its author and its bytes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a resume has one answer from."""

    read: Callable[[str], Awaitable[list[Kept]]]
    """Returns what an author has published, oldest first; raises `UnavailableError`."""
    close: Callable[[], Awaitable[None]]
    """Ends the delivery of what comes."""


class Homes:
    """The gateways whose answers are resumed here."""

    def __init__(self, bus: Bus) -> None:
        """Read over `bus`."""
        self._bus = bus
        self._arrivals: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()
        self._rushes: dict[str, Rush] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lone = asyncio.Semaphore(LONE_READS)
        bus.on_reconnected(self._forget)

    async def open(self, home: str, token: str, take: Take) -> Source:
        """Deliver what comes of an answer to `take` from now on, and return what is kept of it."""
        rush = self._rush(home, time.monotonic())

        async def read(author: str) -> list[Kept]:
            kept = rush.kept(token) if rush else ()
            if kept:
                return in_order([each for by, each in kept if by == author])
            subject = subject_of(subjects.TOKENS, home=home, author=author, request=token)
            async with self._lone:
                return await read_log(self._bus, subject)

        if rush is not None:
            await rush.join(token, take)
            return Source(read, lambda: rush.leave(token, take))
        pattern = pattern_of(subjects.TOKENS, home=home, request=token)
        close = await _subscribe(
            self._bus, pattern, lambda subject, data: take(_place_of(subject)[0], data)
        )
        return Source(read, close)

    def _rush(self, home: str, now: float) -> "Rush | None":
        """Count an arrival, and return what serves it together with others, if there are many."""
        while self._arrivals and now - self._arrivals[0][0] > AT_ONCE_S:
            self._counts[self._arrivals.popleft()[1]] -= 1
        self._arrivals.append((now, home))
        self._counts += Counter((home,))
        rush = self._rushes.get(home)
        if rush is None and self._counts[home] >= TOGETHER_FROM:
            rush = self._rushes[home] = Rush(self._bus, home)
            task = asyncio.create_task(self._serve(rush, home), name="rush")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return rush

    async def _serve(self, rush: "Rush", home: str) -> None:
        try:
            await rush.serve()
        finally:
            if self._rushes.get(home) is rush:
                del self._rushes[home]
        await rush.end()

    async def _forget(self) -> None:
        """Let nobody join what may have missed something."""
        for rush in self._rushes.values():
            rush.forget()
        self._rushes.clear()


class Rush:
    """Many resumes of one home at once."""

    def __init__(self, bus: Bus, home: str) -> None:
        """Take in nothing before `serve`."""
        self._bus = bus
        self._pattern = pattern_of(subjects.TOKENS, home=home)
        self._readers: dict[str, list[Take]] = {}
        self._kept: dict[str, list[tuple[str, Kept]]] | None = {}
        self._room = MAX_KEPT_BYTES
        self._ready = asyncio.Event()
        self._news = asyncio.Event()
        """Somebody has come or left."""
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None

    async def join(self, token: str, take: Take) -> None:
        """Deliver an answer's frames to `take`; returns when what is kept has been read."""
        self._readers.setdefault(token, []).append(take)
        self._news.set()
        try:
            await self._ready.wait()
        except asyncio.CancelledError:
            await self.leave(token, take)
            raise

    async def leave(self, token: str, take: Take) -> None:
        """Deliver to `take` no more."""
        readers = self._readers[token]
        readers.remove(take)
        if not readers:
            del self._readers[token]
        self._news.set()

    def kept(self, token: str) -> list[tuple[str, Kept]]:
        """Return the frames of an answer with their authors; none if they have to be read alone."""
        return (self._kept or {}).get(token, [])

    def forget(self) -> None:
        """Keep nothing more."""
        self._kept = None
        self._news.set()

    async def serve(self) -> None:
        """Read the log, then keep it up for a while."""
        began = time.monotonic()
        try:
            self._unsubscribe = await _subscribe(self._bus, self._pattern, self._arrive)
            await read_matching(self._bus, self._pattern, self._keep)
        except HelexaError as error:
            _log.warning("log_not_read", extra={"code": error.code})
            self.forget()
        finally:
            self._ready.set()
        _log.info(
            "read_together",
            extra={"resumes": len(self._readers), "seconds": round(time.monotonic() - began, 3)},
        )
        end = time.monotonic() + KEEP_S
        while self._kept is not None and (rest_s := end - time.monotonic()) > 0:
            await self._has_news(rest_s)
        self.forget()

    async def end(self) -> None:
        """Return when the last reader has left."""
        while self._readers:
            await self._has_news(None)
        if self._unsubscribe is not None:
            await self._unsubscribe()

    async def _has_news(self, within_s: float | None) -> None:
        """Return when somebody has come or left, or after `within_s`."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()

    def _arrive(self, subject: str, data: bytes) -> None:
        self._keep(subject, Kept(data, 0))
        author, token = _place_of(subject)
        for take in self._readers.get(token, ()):
            take(author, data)

    def _keep(self, subject: str, kept: Kept) -> bool:
        """Keep a frame; return whether more may be kept."""
        if self._kept is None:
            return False
        self._room -= len(kept.data) + FRAME_OVERHEAD_BYTES
        if self._room < 0:
            _log.warning("log_too_large", extra={"max_bytes": MAX_KEPT_BYTES})
            self.forget()
            return False
        author, token = _place_of(subject)
        self._kept.setdefault(token, []).append((author, kept))
        return True


def in_order(kept: list[Kept]) -> list[Kept]:
    """Return what was read in the log's order, then what came live and was not in it yet."""
    logged = [each for each in kept if each.sequence]
    known = {each.data for each in logged}
    return logged + [each for each in kept if not each.sequence and each.data not in known]


def _place_of(subject: str) -> tuple[str, str]:
    """Return the author and the answer that a frame's subject names."""
    _, author, token = subject.rsplit(".", 2)
    return author, token


async def _subscribe(
    bus: Bus, pattern: str, handler: Callable[[str, bytes], None]
) -> Callable[[], Awaitable[None]]:
    """Call `handler` with what comes on `pattern`, and return what ends that."""
    subscription = await bus.subscribe_raw(pattern, handler)

    async def close() -> None:
        if not bus.closed.is_set():
            await subscription.unsubscribe()

    return close
