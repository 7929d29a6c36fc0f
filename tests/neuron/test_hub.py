# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Models are fetched from a hub or a URL, against real HTTP servers of this host."""

import asyncio
import hashlib
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helexa.neuron.hub import (
    DownloadError,
    DownloadProgress,
    LocalFile,
    RemoteFile,
    SourceError,
    fetch,
    parse_source,
)

MIB = 1 << 20
BODY = os.urandom(3 * MIB + 5)
SHA256 = hashlib.sha256(BODY).hexdigest()
SOURCE = "hf:org/repo/dir/model.gguf"
ADDRESS = "/org/repo/resolve/main/dir/model.gguf"
PLACE = Path("hf", "org", "repo", "main", "dir", "model.gguf")
TOKEN = "hf_secretsecretsecret"

Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each path by its replies in turn, the last one for ever, and notes what was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.seen: list[Message] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen.append(self.headers)
                replies = server.replies.get(self.path, [status(404)])
                (replies.pop(0) if len(replies) > 1 else replies[0])(self)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def ranges(self) -> list[str | None]:
        return [headers["Range"] for headers in self.seen]


def send(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str]) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def status(code: int, **headers: str) -> Reply:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: send(handler, code, {"Content-Length": "0", **fields})


def content(
    body: bytes = BODY,
    *,
    etag: str = '"one"',
    until: int | None = None,
    wait: threading.Event | None = None,
    **headers: str,
) -> Reply:
    """The body, or the range asked for; up to `until`, then waits and breaks off."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    def reply(handler: BaseHTTPRequestHandler) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
        start = int(found[1]) if found else 0
        span = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if found else {}
        length = {"Content-Length": str(len(body) - start), "ETag": etag}
        send(handler, 206 if found else 200, {**length, **span, **fields})
        handler.wfile.write(body[start:until])
        if wait is not None:
            wait.wait(20)

    return reply


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hub() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def cdn() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


class Fetcher:
    """Fetches from the hub of the test without pauses, and keeps the progress."""

    def __init__(self, hub: Server, models_dir: Path) -> None:
        self._hub, self._models_dir = hub, models_dir
        self.progress: list[DownloadProgress] = []

    async def __call__(
        self, source: str = SOURCE, token: str | None = None, maximum_attempts: int = 4
    ) -> Path:
        return await fetch(
            source,
            self._models_dir,
            endpoint=self._hub.url,
            token=token,
            progress=self.progress.append,
            initial_interval_s=0.001,
            maximum_attempts=maximum_attempts,
        )

    async def fails(self, source: str = SOURCE, token: str | None = None) -> DownloadError:
        with pytest.raises(DownloadError) as caught:
            await self(source, token)
        return caught.value


@pytest.fixture
def get(hub: Server, tmp_path: Path) -> Fetcher:
    return Fetcher(hub, tmp_path)


async def test_a_file_of_the_hub_lands_below_the_models(
    hub: Server, get: Fetcher, tmp_path: Path
) -> None:
    hub.replies[ADDRESS] = [content(X_Linked_ETag=f'"{SHA256}"')]

    path = await get()

    assert path == tmp_path / PLACE
    assert path.read_bytes() == BODY
    assert get.progress[0] == DownloadProgress(0, len(BODY))
    assert get.progress[-1] == DownloadProgress(len(BODY), len(BODY))
    assert len(get.progress) == 5
    assert not list(tmp_path.rglob("*.part"))


async def test_a_revision_is_asked_for(hub: Server, get: Fetcher) -> None:
    hub.replies["/org/repo/resolve/refs%2Fpr%2F1/a%20b.gguf"] = [content()]

    path = await get("hf:org/repo/a b.gguf@refs/pr/1")

    assert path.parts[-2:] == ("refs%2Fpr%2F1", "a b.gguf")


async def test_a_url_is_fetched_with_its_query(hub: Server, get: Fetcher) -> None:
    hub.replies["/files/m.gguf?key=1"] = [content()]

    path = await get(f"{hub.url}/files/m.gguf?key=1#sha256={SHA256.upper()}")

    assert path.name == "m.gguf"
    assert path.read_bytes() == BODY


async def test_a_cut_body_is_continued_where_it_stopped(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [content(until=2 * MIB + 7), content()]

    path = await get()

    assert path.read_bytes() == BODY
    assert hub.ranges() == [None, f"bytes={2 * MIB}-"]
    received = [step.received_bytes for step in get.progress]
    assert received == sorted(received)


async def test_a_later_fetch_continues_an_earlier_one(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [content(until=2 * MIB), content()]
    with pytest.raises(DownloadError) as caught:
        await get(maximum_attempts=1)

    path = await get()

    assert caught.value.retryable
    assert path.read_bytes() == BODY
    assert hub.ranges() == [None, f"bytes={2 * MIB}-"]


async def test_a_file_that_changed_meanwhile_starts_over(hub: Server, get: Fetcher) -> None:
    changed = os.urandom(2 * MIB + 1)
    hub.replies[ADDRESS] = [content(until=2 * MIB), content(changed, etag='"two"')]

    path = await get()

    assert path.read_bytes() == changed
    assert hub.ranges() == [None, f"bytes={2 * MIB}-", None]


async def test_a_file_that_shrank_meanwhile_starts_over(hub: Server, get: Fetcher) -> None:
    small = content(b"small", etag='"two"')
    hub.replies[ADDRESS] = [content(until=2 * MIB), status(416), small]

    path = await get()

    assert path.read_bytes() == b"small"


async def test_a_weak_etag_is_not_continued(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [content(until=2 * MIB, etag='W/"one"'), content(etag='W/"one"')]

    path = await get()

    assert path.read_bytes() == BODY
    assert hub.ranges() == [None, None]


async def test_a_server_without_ranges_is_read_from_the_start(hub: Server, get: Fetcher) -> None:
    def whole(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"Content-Length": str(len(BODY)), "ETag": '"one"'})
        handler.wfile.write(BODY)

    hub.replies[ADDRESS] = [content(until=2 * MIB), whole]

    path = await get()

    assert path.read_bytes() == BODY
    assert len(hub.seen) == 2


async def test_a_cancelled_fetch_can_be_taken_up(hub: Server, get: Fetcher) -> None:
    release = threading.Event()
    hub.replies[ADDRESS] = [content(until=2 * MIB + 9, wait=release), content()]
    has_two = asyncio.Event()

    def told(progress: DownloadProgress) -> None:
        if progress.received_bytes >= 2 * MIB:
            has_two.set()

    get.progress.append = told  # type: ignore[method-assign]
