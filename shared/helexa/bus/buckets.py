# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Key-value buckets with typed records, and local mirrors of them that survive a restart."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.js.kv import KeyValue

from helexa.bus.client import Bus
from helexa.protocol import resources
from helexa.protocol.codec import pack, unpack
from helexa.protocol.errors import ConflictError, HelexaError, UnavailableError
from helexa.protocol.messages.base import Message
from helexa.protocol.naming import decode_token, encode_token
from helexa.protocol.subjects import bucket_stream

_log = logging.getLogger(__name__)

RecordT = TypeVar("RecordT", bound=Message)
RETRY_S = 0.5
CHECK_S = 1.0
UNDERWAY_S = 0.25
"""How long an update may be on its way."""
WATCH_IDLE_S = 30.0
"""The server forgets a watch that its reader has left."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[RecordT]):
    """A record and the revision to name when replacing it."""

    value: RecordT
    revision: int


class Bucket(Generic[RecordT]):
    """Typed access to one bucket. Keys are any text.

    Every method raises `UnavailableError` when the bucket cannot be reached.
    """

    def __init__(self, bus: Bus, declared: resources.Bucket, kind: type[RecordT]) -> None:
        """Bind the bucket to the type of its records."""
        self.bus = bus
        self.declared = declared
        self.kind = kind
        self._store: KeyValue | None = None

    async def get(self, key: str) -> Entry[RecordT] | None:
        """Return the record under `key`, read from the server."""
        try:
            found = await (await self._open()).get(encode_token(key))
        except (nats.js.errors.KeyNotFoundError, nats.js.errors.KeyDeletedError):
            return None
        except (TimeoutError, nats.errors.Error) as error:
            raise self._unavailable() from error
        return Entry(unpack(self.kind, found.value or b""), found.revision or 0)

    async def put(self, key: str, value: RecordT) -> int:
        """Store `value` whatever was there, and return its revision."""
        try:
            return await (await self._open()).put(encode_token(key), pack(value))
        except (TimeoutError, nats.errors.Error) as error:
            raise self._unavailable() from error

    async def replace(self, key: str, value: RecordT, revision: int | None) -> int:
        """Store `value` if `revision` is still the latest (`None`: if there is no record).

        Raises:
            ConflictError: somebody else was first.
        """
        store = await self._open()
        try:
            if revision is None:
                return await store.create(encode_token(key), pack(value))
            return await store.update(encode_token(key), pack(value), last=revision)
        except nats.js.errors.KeyWrongLastSequenceError as error:
            raise ConflictError(f"{self.declared.name}/{key} has changed") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise self._unavailable() from error

    async def delete(self, key: str) -> None:
        """Remove `key`; nothing happens if it is not there."""
        try:
            await (await self._open()).delete(encode_token(key))
        except (TimeoutError, nats.errors.Error) as error:
            raise self._unavailable() from error

    async def _open(self) -> KeyValue:
        """Return the bucket. To ask whether it exists costs as much as what is asked of it then."""
        if self._store is None:
            try:
                self._store = await self.bus.jetstream.key_value(self.declared.name)
            except (TimeoutError, nats.errors.Error) as error:
                raise self._unavailable() from error
        return self._store

    def _unavailable(self) -> HelexaError:
        self._store = None
        return UnavailableError(f"the bucket {self.declared.name} cannot be reached")


class Mirror(Generic[RecordT]):
    """A local copy of a bucket, kept up to date by a watch.

    After each reconnection the watch is rebuilt at once: a watch that merely goes on can stay
    silent for many seconds (measured). Until the rebuilt one has caught up `is_fresh` is false and
    `get` asks the server.

    A watch can fall silent without that: with the server that fed it, in a cluster. nats-py finds
    out after ten seconds; where that is too long, `checks` compares with the bucket each second.
    """

    def __init__(self, bucket: Bucket[RecordT], *, checks: bool = False) -> None:
        """Mirror `bucket` from `run` on."""
        self.bucket = bucket
        self._checks = checks
        self._heard = 0
        """The highest revision that the watch has told of."""
        self._missed = 0
        """The highest one that was looked for in vain; it may have been purged."""
        self._entries: dict[str, Entry[RecordT]] = {}
        self._learned: dict[str, int] = {}
        """Revisions that this process wrote, which the watch may not have told of yet."""
        self._listeners: list[Callable[[str, RecordT | None], None]] = []
        self._rebuild = asyncio.Event()
        self._fresh = asyncio.Event()
        bucket.bus.on_reconnected(self._on_reconnected)

    @property
    def entries(self) -> Mapping[str, Entry[RecordT]]:
        """The records by key."""
        return MappingProxyType(self._entries)

    @property
    def values(self) -> dict[str, RecordT]:
        """The records without their revisions."""
        return {key: entry.value for key, entry in self._entries.items()}

    @property
    def is_fresh(self) -> bool:
        """Whether the copy has caught up with the bucket since the last connection."""
        return self._fresh.is_set()

    def on_change(self, listener: Callable[[str, RecordT | None], None]) -> None:
        """Call `listener` with each changed key and its record (`None`: it is gone)."""
        self._listeners.append(listener)

    async def wait_fresh(self) -> None:
        """Return when the copy has caught up."""
        await self._fresh.wait()

    def learn(self, key: str, entry: Entry[RecordT]) -> None:
        """Know a record that this process has just written, before the watch tells of it."""
        held = self._entries.get(key)
        if held is None or held.revision < entry.revision:
            self._learned[key] = entry.revision
            self._set(key, entry)

    async def get(self, key: str) -> RecordT | None:
        """Return the record under `key`: from the copy when it is fresh, else from the server."""
        if not self.is_fresh:
            entry = await self.bucket.get(key)
            return entry.value if entry else None
        held = self._entries.get(key)
        return held.value if held else None

    async def run(self) -> None:
        """Keep the copy up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._checks:
                group.create_task(self._check())
            await self._keep()

    async def _keep(self) -> None:
        while True:
            self._rebuild.clear()
            try:
                await self._follow()
            except (TimeoutError, nats.errors.Error, HelexaError) as error:
                _log.debug(
                    "mirror_waits",
                    extra={"bucket": self.bucket.declared.name, "error": str(error)},
                )
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._rebuild.wait(), RETRY_S)

    async def _follow(self) -> None:
        await self.bucket.bus.wait_connected()
        store = await self.bucket.bus.jetstream.key_value(self.bucket.declared.name)
        watcher = await store.watchall(inactive_threshold=WATCH_IDLE_S)
        rebuild = asyncio.create_task(self._rebuild.wait())
        seen: set[str] = set()
        is_caught_up = False
        self._learned.clear()
        self._heard = 0
        try:
            while not rebuild.done():
                update = asyncio.create_task(watcher._updates.get())  # noqa: SLF001 - see below
                # nats-py's own `updates()` ends in a timeout; its queue is what can be waited for.
                await asyncio.wait({update, rebuild}, return_when=asyncio.FIRST_COMPLETED)
                if not update.done():
                    update.cancel()
                    return
                entry = update.result()
                if isinstance(entry, KeyValue.Entry):
                    self._apply(entry, seen)
                    is_last = not entry.delta
                else:
                    is_last = bool(seen) or await _is_empty(watcher)
                if is_last and not is_caught_up:
                    is_caught_up = True
                    self._catch_up(seen)
        finally:
            rebuild.cancel()
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
                await watcher.stop()

    def _catch_up(self, seen: set[str]) -> None:
        for key in [key for key in self._entries if key not in seen]:
            self._set(key, None)
        self._fresh.set()

    def _apply(self, entry: KeyValue.Entry, seen: set[str]) -> None:
        key = decode_token(entry.key)
        seen.add(key)
        self._heard = max(self._heard, entry.revision or 0)
        if (entry.revision or 0) < self._learned.get(key, 0):
            return
        self._learned.pop(key, None)
        if entry.operation is not None:
            self._set(key, None)
            return
        try:
            value = unpack(self.bucket.kind, entry.value or b"")
        except HelexaError as error:
            _log.error(
                "record_unreadable",
                extra={"bucket": self.bucket.declared.name, "key": key, "error": error.message},
            )
            return
        self._set(key, Entry(value, entry.revision or 0))

    def _set(self, key: str, entry: Entry[RecordT] | None) -> None:
        if entry is None:
            if self._entries.pop(key, None) is None:
                return
        else:
            self._entries[key] = entry
        for listener in self._listeners:
            listener(key, entry.value if entry else None)

    async def _check(self) -> None:
        """Rebuild the watch when the bucket holds what it has not told of."""
        while True:
            await asyncio.sleep(CHECK_S)
            if not self.is_fresh:
                continue
            last = await self._last_revision()
            if last <= max(self._heard, self._missed):
                continue
            await asyncio.sleep(UNDERWAY_S)
            if last > self._heard:
                _log.warning("watch_is_silent", extra={"bucket": self.bucket.declared.name})
                self._missed = last
                await self._on_reconnected()

    async def _last_revision(self) -> int:
        """Return the bucket's last revision, 0 where it cannot be asked now."""
        name = bucket_stream(self.bucket.declared.name)
        try:
            async with asyncio.timeout(CHECK_S):
                return (await self.bucket.bus.jetstream.stream_info(name)).state.last_seq
        except (TimeoutError, nats.errors.Error):
            return 0

    async def _on_reconnected(self) -> None:
        self._fresh.clear()
        self._rebuild.set()


async def _is_empty(watcher: KeyValue.KeyWatcher) -> bool:
    """Whether there is nothing to come before a watch has caught up.

    nats-py says so, too early, when the server has sent everything and none of it has arrived (of
    1,000 watches on a busy machine 9).
    """
    subscription = watcher._sub  # noqa: SLF001 - it has no other way
    if subscription is None:
        return True
    info = await subscription.consumer_info()
    return not info.num_pending and not (info.delivered and info.delivered.consumer_seq)
