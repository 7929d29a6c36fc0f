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
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typing_extensions import override

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
LIMIT_S = 20
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
                with suppress(ConnectionError):
                    (replies.pop(0) if len(replies) > 1 else replies[0])(self)

            @override
            def log_message(self, format: str, *args: object) -> None:
                logging.getLogger(__name__).debug(format, *args)

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
            wait.wait(LIMIT_S)

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
        self._marks: dict[int, asyncio.Event] = {}

    async def __call__(
        self, source: str = SOURCE, token: str | None = None, maximum_attempts: int = 4
    ) -> Path:
        async with asyncio.timeout(LIMIT_S):
            return await fetch(
                source,
                self._models_dir,
                endpoint=self._hub.url,
                token=token,
                progress=self._told,
                initial_interval_s=0.001,
                maximum_attempts=maximum_attempts,
            )

    async def fails(self, source: str = SOURCE, token: str | None = None) -> DownloadError:
        with pytest.raises(DownloadError) as caught:
            await self(source, token)
        return caught.value

    async def has_received(self, received_bytes: int) -> None:
        event = self._marks.setdefault(received_bytes, asyncio.Event())
        await asyncio.wait_for(event.wait(), LIMIT_S)

    def _told(self, step: DownloadProgress) -> None:
        self.progress.append(step)
        for mark, event in self._marks.items():
            if step.received_bytes >= mark:
                event.set()


@contextmanager
def awaited(caplog: pytest.LogCaptureFixture) -> Iterator[asyncio.Event]:
    """An event that is set once a fetch waits for another one."""
    event = asyncio.Event()

    def seen(record: logging.LogRecord) -> bool:
        if record.getMessage() == "download_awaited":
            event.set()
        return True

    caplog.set_level(logging.DEBUG, "helexa.neuron.downloads")
    logger = logging.getLogger("helexa.neuron.downloads")
    logger.addFilter(seen)
    try:
        yield event
    finally:
        logger.removeFilter(seen)


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
    task = asyncio.create_task(get())
    await get.has_received(2 * MIB)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()

    path = await get()

    assert path.read_bytes() == BODY
    assert hub.ranges() == [None, f"bytes={2 * MIB}-"]


async def test_a_wrong_checksum_is_refused_and_the_file_removed(
    hub: Server, get: Fetcher, tmp_path: Path
) -> None:
    hub.replies[ADDRESS] = [content(X_Linked_ETag=f'"{"0" * 64}"')]

    error = await get.fails()

    assert not error.retryable
    assert SHA256 in str(error)
    assert not [path for path in tmp_path.rglob("model.gguf*") if path.suffix != ".lock"]
    assert len(hub.seen) == 1


async def test_a_checksum_in_the_source_is_checked(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [content()]

    error = await get.fails(f"{SOURCE}#sha256={'0' * 64}")

    assert (error.retryable, SHA256 in str(error)) == (False, True)


async def test_a_checksum_the_hub_contradicts_is_refused_before_any_byte(
    hub: Server, get: Fetcher
) -> None:
    hub.replies[ADDRESS] = [content(X_Linked_ETag=SHA256)]

    await get.fails(f"{SOURCE}#sha256={'0' * 64}")

    assert get.progress == []


async def test_a_file_with_neither_size_nor_checksum_is_refused(hub: Server, get: Fetcher) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {})
        handler.wfile.write(BODY)

    hub.replies[ADDRESS] = [endless]

    assert "#sha256=" in str(await get.fails())
    assert (await get(f"{SOURCE}#sha256={SHA256}")).read_bytes() == BODY


async def test_a_compressed_answer_is_refused(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [content(Content_Encoding="gzip")]

    assert not (await get.fails()).retryable
    assert hub.seen[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("code", "token", "advice"),
    [
        (401, None, "set HF_TOKEN"),
        (403, TOKEN, "accept the model's terms"),
        (404, None, "check repository, revision and file name"),
        (400, None, "400"),
    ],
)
async def test_a_final_refusal_says_at_once_what_to_do(
    hub: Server, get: Fetcher, code: int, token: str | None, advice: str
) -> None:
    hub.replies[ADDRESS] = [status(code, X_Error_Code="Gated")]

    error = await get.fails(token=token)

    assert not error.retryable
    assert advice in str(error)
    assert "Gated" in str(error)
    assert len(hub.seen) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_a_passing_refusal_is_retried(hub: Server, get: Fetcher, code: int) -> None:
    hub.replies[ADDRESS] = [status(code), status(code, Retry_After="0"), content()]

    assert (await get()).read_bytes() == BODY


async def test_retries_are_bounded(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [status(503)]

    error = await get.fails()

    assert error.retryable
    assert len(hub.seen) == 4


@pytest.mark.parametrize("value", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT"])
async def test_a_long_retry_after_is_left_to_the_caller(
    hub: Server, get: Fetcher, value: str
) -> None:
    hub.replies[ADDRESS] = [status(429, Retry_After=value)]

    error = await get.fails()

    assert error.retryable
    assert error.retry_after_s >= 3600
    assert len(hub.seen) == 1


async def test_a_server_that_is_not_there_is_retryable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(DownloadError) as caught:
        await fetch(
            f"http://127.0.0.1:{port}/m.gguf",
            tmp_path,
            initial_interval_s=0.001,
            maximum_attempts=2,
        )

    assert caught.value.retryable


async def test_a_redirect_drops_the_token_and_keeps_the_checksum(
    hub: Server, cdn: Server, get: Fetcher
) -> None:
    hop = status(307, Location="/hop")
    away = status(302, Location=f"{cdn.url}/blob?sig=1", X_Linked_ETag=f'"{SHA256}"')
    hub.replies.update({ADDRESS: [hop], "/hop": [away]})
    cdn.replies["/blob?sig=1"] = [content(until=2 * MIB, etag='"x"'), content(etag='"y"')]

    path = await get(token=f"{TOKEN}\n")

    assert path.read_bytes() == BODY
    assert [headers["Authorization"] for headers in hub.seen] == [f"Bearer {TOKEN}"] * 4
    assert [headers["Authorization"] for headers in cdn.seen] == [None, None]
    assert cdn.ranges() == [None, f"bytes={2 * MIB}-"]


async def test_a_url_elsewhere_never_sees_the_token(cdn: Server, get: Fetcher) -> None:
    cdn.replies["/m.gguf"] = [status(401)]

    error = await get.fails(f"{cdn.url}/m.gguf", TOKEN)

    assert cdn.seen[0]["Authorization"] is None
    assert "to the hub only" in str(error)


async def test_endless_redirects_end(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [status(302, Location=ADDRESS)]

    assert not (await get.fails()).retryable
    assert len(hub.seen) == 5


async def test_the_token_is_in_no_log_and_no_error(
    hub: Server, get: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.replies[ADDRESS] = [status(503), status(403)]

    errors = [await get.fails(token=TOKEN), await get.fails(token=f"{TOKEN}\n{TOKEN}")]

    assert hub.seen[0]["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in caplog.text + "".join(map(repr, errors))


async def test_two_fetches_of_one_file_download_it_once(
    hub: Server, get: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    hub.replies[ADDRESS] = [content(until=MIB, wait=release), content()]
    first = asyncio.create_task(get())
    await get.has_received(MIB)
    with awaited(caplog) as second_waits:
        second = asyncio.create_task(get())
        await asyncio.wait_for(second_waits.wait(), LIMIT_S)
    release.set()

    assert await first == await second
    assert hub.ranges() == [None, f"bytes={MIB}-"]


async def test_two_processes_download_a_file_once(
    hub: Server, get: Fetcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    hub.replies[ADDRESS] = [content(until=MIB, wait=release), content()]
    code = """
import asyncio, sys, pathlib, helexa.neuron.hub as hub
told = lambda step: print(step.received_bytes, flush=True)
source, place, url = sys.argv[1:]
options = {"endpoint": url, "progress": told, "initial_interval_s": 0.001}
asyncio.run(hub.fetch(source, pathlib.Path(place), **options))
"""
    arguments = ("-c", code, SOURCE, str(tmp_path), hub.url)
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe)
    assert child.stdout is not None
    await child.stdout.readline()
    with awaited(caplog) as parent_waits:
        task = asyncio.create_task(get())
        await asyncio.wait_for(parent_waits.wait(), LIMIT_S)
    release.set()

    path = await task

    assert path.read_bytes() == BODY
    assert (await child.communicate(), child.returncode)[1] == 0
    assert hub.ranges() == [None, f"bytes={MIB}-"]


async def test_a_fetched_file_needs_no_network(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [content()]
    path = await get()
    hub.replies[ADDRESS] = [status(503)]

    assert await get() == await get(f"{SOURCE}#sha256={SHA256}") == path
    assert len(hub.seen) == 1


async def test_a_file_that_was_tampered_with_is_fetched_again(hub: Server, get: Fetcher) -> None:
    hub.replies[ADDRESS] = [content()]
    path = await get()
    path.write_bytes(BODY[::-1])

    await get()

    assert path.read_bytes() == BODY


async def test_a_disk_without_room_is_said_before_any_byte(hub: Server, get: Fetcher) -> None:
    def huge(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"Content-Length": str(1 << 60), "ETag": '"one"'})

    hub.replies[ADDRESS] = [huge]

    error = await get.fails()

    assert not error.retryable
    assert "bytes more are needed" in str(error)
    assert get.progress == []


async def test_a_models_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DownloadError, match="cannot be kept"):
        await fetch(SOURCE, tmp_path / "file")


async def test_a_proxy_of_the_environment_is_used(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", hub.url)
    hub.replies[f"http://hub.invalid{ADDRESS}"] = [content()]

    path = await fetch(SOURCE, tmp_path, endpoint="http://hub.invalid/")

    assert path.read_bytes() == BODY


async def test_a_local_file_is_checked_and_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(BODY)

    assert await fetch(f"{path}#sha256={SHA256}", tmp_path / "models") == path
    with pytest.raises(DownloadError, match=SHA256):
        await fetch(f"{path}#sha256={'0' * 64}", tmp_path)
    with pytest.raises(DownloadError, match="cannot be read"):
        await fetch(f"file://{path}.absent", tmp_path)


def test_each_form_of_a_source_is_understood() -> None:
    assert parse_source("/a/b c.gguf") == LocalFile(Path("/a/b c.gguf"))
    assert parse_source("file:///a/b%20c.gguf") == LocalFile(Path("/a/b c.gguf"))
    assert parse_source("file:/a/b") == LocalFile(Path("/a/b"))
    assert parse_source("~/m.gguf") == LocalFile(Path.home() / "m.gguf")
    assert parse_source("./m.gguf") == LocalFile(Path.cwd() / "m.gguf")
    assert parse_source(SOURCE) == RemoteFile(ADDRESS, PLACE)
    assert parse_source(f" {SOURCE}#sha256={SHA256}") == RemoteFile(ADDRESS, PLACE, SHA256)
    assert parse_source("https://h/a?x") != parse_source("https://h/a?y")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model.gguf",
        "ftp://host/m.gguf",
        "/a/../b",
        "../m.gguf",
        "~/../m.gguf",
        "file:///a/%2e%2e/b",
        "file://elsewhere/a",
        "hf:org/repo",
        "hf:org/repo/",
        "hf:../repo/m.gguf",
        "hf:org/../m.gguf",
        "hf:org/repo/../../m.gguf",
        "hf:org/repo//m.gguf",
        "hf:org/repo/a\\b",
        "hf:org/repo/a\nb",
        "hf:org/repo/m.gguf@../x",
        "hf:org/repo/m.gguf@",
        "hf:org/repo/m.gguf.part",
        "hf:org/repo/m.gguf#sha256=12",
        "https://host/",
        "https://host/a/../b",
        "https://host/a%2f..%2fb",
        "https://../b",
        "https://user:secret@host/m.gguf",
        "https://host/m.gguf#other",
        "https://host:port/m.gguf",
        "http://host/m.gguf",
    ],
)
def test_what_names_no_place_or_leads_upwards_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        parse_source(text)
