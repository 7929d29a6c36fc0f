# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One file brought over HTTP to one path: there complete and verified, or not there at all."""

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_MAX_HOPS = 5
_LOCK_PAUSE_S = 2.0
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


class ChecksumError(ValueError):
    """The bytes are not the promised ones, or nothing tells whether they are; none are kept."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file to bring."""

    url: str
    hub: str
    """The hub's address: its origin alone sees the token and is believed about checksums."""
    sha256: str | None
    token: str | None = field(repr=False)

    def is_at_hub(self, url: httpx.URL) -> bool:
        """Whether `url` has the hub's scheme, host and port."""
        hub = httpx.URL(self.hub)
        return (url.scheme, url.netloc) == (hub.scheme, hub.netloc)


class _Body(BaseModel, frozen=True):
    """The file that an answer carries; its identity names the exact bytes, if anything does."""

    identity: str | None = None
    sha256: str | None = None
    total_bytes: int | None = None


class _Verified(BaseModel, frozen=True):
    sha256: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """A body about to come, and the tag that the hub gave the file on the way to it."""

    response: httpx.Response
    linked: str | None

    @property
    def is_whole(self) -> bool:
        return self.response.status_code == HTTPStatus.OK

    @property
    def body(self) -> _Body:
        headers = self.response.headers
        sha256 = _SHA256.fullmatch(self.linked or "")
        tag = headers.get("etag")
        # A weak tag promises the same meaning, not the same bytes.
        strong = tag if tag and not tag.startswith("W/") else None
        length = headers.get("content-length" if self.is_whole else "content-range", "")
        size = length.rpartition("/")[2]
        return _Body(
            identity=self.linked or strong,
            sha256=sha256[1] if sha256 else None,
            total_bytes=int(size) if size.isdecimal() else None,
        )

    def continues(self, part: "_Part") -> bool:
        return (
            self.response.status_code == HTTPStatus.PARTIAL_CONTENT
            and self.response.headers.get("content-range", "").startswith(f"bytes {part.size}-")
            and self.body.identity == part.body.identity
        )


class Landing:
    """The target of a download and the files that stand beside it meanwhile."""

    SUFFIXES = (".part", ".part.json", ".verified.json", ".lock")

    def __init__(self, target: Path) -> None:
        self.target = target.absolute()
        self.part, self.begun, self.verified, self._lock = (
            self.target.with_name(target.name + suffix) for suffix in self.SUFFIXES
        )

    def is_complete(self, sha256: str | None) -> bool:
        """Whether the target is what was verified when it arrived, and has this checksum.

        Size and modification time stand for the bytes: to hash a large model takes minutes.
        """
        try:
            known = _Verified.model_validate_json(self.verified.read_bytes())
            found = self.target.stat()
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return False
        is_untouched = (found.st_size, found.st_mtime_ns) == (known.size_bytes, known.modified_ns)
        return is_untouched and sha256 in {None, known.sha256}

    def commit(self, sha256: str) -> None:
        """Makes the part the target."""
        found = self.part.stat()
        record = _Verified(sha256=sha256, size_bytes=found.st_size, modified_ns=found.st_mtime_ns)
        # Written first: a crash in between leaves a full part, not a target that nobody verified.
        self.verified.write_text(record.model_dump_json())
        self.part.replace(self.target)
        self.begun.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forgets what has arrived."""
        self.part.unlink(missing_ok=True)
        self.begun.unlink(missing_ok=True)

    @asynccontextmanager
    async def hold(self, initial_interval_s: float) -> AsyncIterator[None]:
        """Keeps every other download of the target out, of this process and of others.

        It ends with the process that holds it; its file stays, or two could hold it at once.
        """
        # Tried again and again, because a thread that blocks in it could not be cancelled.
        place = str(self.target)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(BlockingIOError),
                wait=wait_random_exponential(multiplier=initial_interval_s, max=_LOCK_PAUSE_S),
                before_sleep=lambda _: logger.debug("download_awaited", extra={"to": place}),
            ):
                with attempt:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)


class _Part:
    """The open part file and its running checksum; its methods block on the disk."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        # Buffered, so that closing it waits for a write that another thread is in.
        self._file = landing.part.open("a+b")
        self._hash = hashlib.sha256()
        self.size = 0
        self.body = _Body()

    def close(self) -> None:
        self._file.close()

    def load(self) -> None:
        """Takes up what an earlier attempt left, if that can be continued."""
        try:
            self.body = _Body.model_validate_json(self._landing.begun.read_bytes())
        except (FileNotFoundError, ValidationError):
            self.restart()
            return
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            self._hash.update(chunk)
            self.size += len(chunk)
        if self.body.identity is None or self.size > (self.body.total_bytes or self.size):
            self.restart()

    def restart(self) -> None:
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = 0

    def begin(self, body: _Body) -> None:
        self.body = body
        self._landing.begun.write_text(body.model_dump_json())

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def digest(self) -> str:
        """The checksum of all bytes, which are safe on the disk then."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Transfer:
    """One attempt to bring a file; what arrives before it fails serves the next one."""

    client: httpx.AsyncClient
    wanted: Wanted
    landing: Landing
    progress: Callable[[int, int | None], None]
    """Told the bytes on the disk, and of how many, after each chunk."""

    async def run(self) -> None:
        """Brings the file.

        Raises:
            httpx.HTTPError: a server could not be reached, refused, or broke off.
            ChecksumError: the file is not what was promised.
            OSError: the disk refused, or has no room.
        """
        with closing(_Part(self.landing)) as part:
            await asyncio.to_thread(part.load)
            if not 0 < part.size == part.body.total_bytes:
                await self._receive(part)
            digest = await asyncio.to_thread(part.digest)
        self._check(digest, self.wanted.sha256 or part.body.sha256)
        self.landing.commit(digest)

    async def _receive(self, part: _Part) -> None:
        async with self._opened(part.size) as answer:
            if part.size and not answer.continues(part):
                part.restart()
            if part.size or answer.is_whole:
                await self._pour(answer, part)
                return
        async with self._opened(0) as answer:
            await self._pour(answer, part)

    async def _pour(self, answer: _Answer, part: _Part) -> None:
        body = answer.body
        encoding = answer.response.headers.get("content-encoding", "identity")
        if encoding != "identity" or not (answer.is_whole or part.size):
            raise ChecksumError("the server sent something else than the plain, whole file")
        if body.sha256:
            self._check(body.sha256, self.wanted.sha256)
        if not (self.wanted.sha256 or body.sha256 or body.total_bytes):
            raise ChecksumError("the server tells neither size nor checksum; add #sha256=")
        self._check_room((body.total_bytes or 0) - part.size)
        part.begin(body)
        self.progress(part.size, body.total_bytes)
        async for chunk in answer.response.aiter_raw(_CHUNK_BYTES):
            await asyncio.to_thread(part.write, chunk)
            self.progress(part.size, body.total_bytes)
        if body.total_bytes not in {None, part.size}:
            raise httpx.RemoteProtocolError(f"{part.size} of {body.total_bytes} bytes came")

    def _check(self, found: str, expected: str | None) -> None:
        if expected not in {None, found}:
            self.landing.discard()
            raise ChecksumError(f"its SHA-256 is {found}, not {expected}")

    def _check_room(self, needed_bytes: int) -> None:
        place = self.landing.target.parent
        if needed_bytes > (free_bytes := shutil.disk_usage(place).free):
            room = f"{needed_bytes:,} bytes more are needed and {free_bytes:,} are free"
            raise OSError(errno.ENOSPC, room, str(place))

    @asynccontextmanager
    async def _opened(self, offset: int) -> AsyncIterator[_Answer]:
        url, linked = httpx.URL(self.wanted.url), None
        for _ in range(_MAX_HOPS):
            request = self.client.build_request("GET", url, headers=self._headers(url, offset))
            response = await self.client.send(request, stream=True)
            async with aclosing(response):
                if self.wanted.is_at_hub(url):
                    linked = response.headers.get("x-linked-etag", linked)
                if response.next_request is None:
                    if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        response.raise_for_status()
                    yield _Answer(response, linked)
                    return
                if (url.scheme, response.next_request.url.scheme) == ("https", "http"):
                    raise httpx.TooManyRedirects("redirected from https to http")
                url = response.next_request.url
        raise httpx.TooManyRedirects(f"redirected more than {_MAX_HOPS} times")

    def _headers(self, url: httpx.URL, offset: int) -> dict[str, str]:
        # Byte ranges and checksums are of the file itself, not of a compressed copy.
        headers = {"Accept-Encoding": "identity", "User-Agent": "helexa"}
        if self.wanted.token and self.wanted.is_at_hub(url):
            headers["Authorization"] = f"Bearer {self.wanted.token}"
        if offset:
            headers["Range"] = f"bytes={offset}-"
        return headers
