# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where a model's file comes from, and how it gets here: a path, the Hugging Face hub, or a URL."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from helexa.neuron.downloads import ChecksumError, Landing, Transfer, Wanted

logger = logging.getLogger(__name__)

_MAX_PAUSE_S = 60.0
_MAX_ASKED_S = 300.0
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_CHECKSUM = re.compile(r"[0-9a-fA-F]{64}")
_TOKEN = re.compile(r"[!-~]+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_REDIRECTED_WRONGLY = (httpx.TooManyRedirects, httpx.UnsupportedProtocol)
_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class SourceError(ValueError):
    """The text names no place that a model can come from."""


class DownloadError(RuntimeError):
    """A file could not be brought here.

    Args:
        message: what happened and what to do about it.
        retryable: whether the same fetch may succeed later without anyone changing anything.
        retry_after_s: the pause that the server asked for, 0 if none.
    """

    def __init__(self, message: str, *, retryable: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far a file is; the total is None where the server does not say."""

    received_bytes: int
    """On the disk, what an earlier run left included; falls where a file starts over."""
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this host."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a web server."""

    address: str
    """Its URL; for a file of the hub without the hub's own address, so from the first / on."""
    place: Path
    """Where it lies below the models' directory; two addresses never share a place."""
    sha256: str | None = None


def parse_source(text: str) -> LocalFile | RemoteFile:
    """The source that a text names; `#sha256=<64 hex digits>` after any form is its checksum.

    Raises:
        SourceError: the text is none of the forms, or its path leads upwards.
    """
    body, mark, digest = text.strip().partition("#sha256=")
    if mark and not _CHECKSUM.fullmatch(digest):
        raise SourceError(f"{text!r}: #sha256= takes 64 hexadecimal digits")
    sha256 = digest.lower() if mark else None
    scheme, _, rest = body.partition(":")
    if scheme == "hf":
        return _hub_file(rest, sha256)
    if scheme in {"http", "https"}:
        return _web_file(body, sha256)
    if scheme == "file":
        return _local_file(unquote(re.sub(r"^//(localhost)?(?=/)", "", rest)), sha256)
    if body.startswith(("/", "~", "./", "../")):
        return _local_file(body, sha256)
    forms = "a path (/x, ~/x, ./x, file:/x), hf:org/repo/file[@revision], or an https:// URL"
    raise SourceError(f"{text!r} is not {forms}")


def _local_file(text: str, sha256: str | None) -> LocalFile:
    if not text or text.startswith("//") or ".." in text.split("/") or "\0" in text:
        raise SourceError(f"{text!r} is no path of this host without '..'")
    try:
        return LocalFile(Path(text).expanduser().absolute(), sha256)
    except RuntimeError as error:
        raise SourceError(f"{text!r}: the home directory is not known") from error


def _hub_file(text: str, sha256: str | None) -> RemoteFile:
    rest, at, revision = text.rpartition("@") if "@" in text else (text, "", "main")
    org, _, rest = rest.partition("/")
    name, _, path = rest.partition("/")
    if not (_NAME.fullmatch(org) and _NAME.fullmatch(name)):
        raise SourceError(f"'hf:{text}' must be hf:org/repo/file[@revision]")
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise SourceError(f"'hf:{text}': {at}{revision} is no revision")
    _check_path(path, f"hf:{text}")
    pinned = quote(revision, safe="")
    address = f"/{org}/{name}/resolve/{pinned}/{quote(path)}"
    return RemoteFile(address, Path("hf", org, name, pinned, path), sha256)


def _web_file(text: str, sha256: str | None) -> RemoteFile:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise SourceError(f"{text!r} is no URL: {error}") from error
    if url.userinfo or url.fragment or not url.host.strip("."):
        raise SourceError("a model's URL has a host, no credentials, and no fragment but #sha256=")
    if url.scheme == "http" and url.host not in _LOOPBACK and sha256 is None:
        raise SourceError(f"{text!r}: over plain http a model needs a #sha256=; or use https")
    # The text, not the parsed URL: that one has resolved its dots already.
    path = unquote(text.partition("://")[2].partition("?")[0].partition("/")[2])
    _check_path(path, text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return RemoteFile(text, Path("url", url.host, digest, path.rpartition("/")[2]), sha256)


def _check_path(path: str, source: str) -> None:
    """Refuses what could leave its directory or meet the files that a download keeps there."""
    parts = path.split("/")
    is_plain = path.isprintable() and "\\" not in path
    if not is_plain or {"", ".", ".."} & set(parts) or path.endswith(Landing.SUFFIXES):
        raise SourceError(f"{source!r} does not name a file without '..' in its path")


async def fetch(
    source: str,
    models_dir: Path,
    *,
    endpoint: str = "https://huggingface.co",
    token: str | None = None,
    progress: Callable[[DownloadProgress], None] = lambda _: None,
    initial_interval_s: float = 1.0,
    maximum_attempts: int = 6,
) -> Path:
    """The file that the source names, on this host.

    A file that was brought before and is untouched is returned without asking the network, also
    where its branch has moved on since. A broken attempt is continued where it stopped.

    Args:
        source: see `parse_source`; pin an hf: source to a commit to be sure of its bytes.
        models_dir: where downloads lie; an hf: source as hf/org/repo/revision/file.
        endpoint: the hub.
        token: the hub's; no other server sees it.
        progress: told after each chunk of up to 1 MiB; it must not block.
        initial_interval_s: longest first pause between attempts; doubles up to 60 s.
        maximum_attempts: how often a failure that may pass is met.

    Raises:
        SourceError: the source names no place.
        DownloadError: the file could not be brought.
    """
    found = parse_source(source)
    if isinstance(found, LocalFile):
        return await asyncio.to_thread(_checked, found)
    # Refused here, because the HTTP client would quote it in its error.
    if token and not _TOKEN.fullmatch(token := token.strip()):
        raise DownloadError("the hub's token holds characters no token has", retryable=False)
    base = endpoint.rstrip("/") if found.address.startswith("/") else ""
    wanted = Wanted(base + found.address, endpoint, found.sha256, token)
    landing = Landing(models_dir / found.place)

    def told(received_bytes: int, total_bytes: int | None) -> None:
        progress(DownloadProgress(received_bytes, total_bytes))

    try:
        if not landing.is_complete(found.sha256):
            landing.target.parent.mkdir(parents=True, exist_ok=True)
            async with landing.hold(initial_interval_s):
                if not landing.is_complete(found.sha256):
                    await _bring(wanted, landing, told, initial_interval_s, maximum_attempts)
    except OSError as error:
        raise DownloadError(f"{source} cannot be kept: {error}", retryable=False) from error
    return landing.target


def _checked(file: LocalFile) -> Path:
    try:
        with file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest() if file.sha256 else None
    except OSError as error:
        message = f"{file.path} cannot be read: {error.strerror}"
        raise DownloadError(message, retryable=False) from error
    if digest != file.sha256:
        raise DownloadError(f"{file.path} has another SHA-256: {digest}", retryable=False)
    return file.path


async def _bring(
    wanted: Wanted,
    landing: Landing,
    progress: Callable[[int, int | None], None],
    initial_interval_s: float,
    maximum_attempts: int,
) -> None:
    place = {"to": str(landing.target)}
    pause = wait_random_exponential(multiplier=initial_interval_s, max=_MAX_PAUSE_S)
    retrying = AsyncRetrying(
        retry=retry_if_exception(_is_worth_a_pause),
        stop=stop_after_attempt(maximum_attempts),
        wait=lambda state: max(pause(state), _asked_s(_why(state))),
        before_sleep=lambda state: logger.warning(
            "download_retried", extra={**place, "why": str(_why(state))}
        ),
        reraise=True,
    )
    # Made in a thread, because it reads every certificate authority from the disk.
    tls = await asyncio.to_thread(httpx.create_ssl_context)
    async with httpx.AsyncClient(timeout=_TIMEOUT, verify=tls) as client:
        logger.info("download_started", extra=place)
        async for attempt in retrying:
            with attempt:
                await _attempt(Transfer(client, wanted, landing, progress))
        logger.info("download_finished", extra=place)


async def _attempt(transfer: Transfer) -> None:
    url = transfer.wanted.url.partition("?")[0]
    try:
        await transfer.run()
    except httpx.HTTPStatusError as error:
        raise _refusal(url, error.response, transfer.wanted) from error
    except (ChecksumError, httpx.InvalidURL, *_REDIRECTED_WRONGLY) as error:
        raise DownloadError(f"{url} was refused: {error}", retryable=False) from error
    except httpx.TransportError as error:
        raise DownloadError(f"{url} broke off: {error!r}", retryable=True) from error


def _why(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _asked_s(error: BaseException | None) -> float:
    return error.retry_after_s if isinstance(error, DownloadError) else 0.0


def _is_worth_a_pause(error: BaseException) -> bool:
    """Whether to wait here; a server that asks for longer leaves it to the caller."""
    return isinstance(error, DownloadError) and error.retryable and _asked_s(error) <= _MAX_ASKED_S


def _refusal(url: str, response: httpx.Response, wanted: Wanted) -> DownloadError:
    status = response.status_code
    reason = response.headers.get("x-error-code", response.reason_phrase)
    said = f"{url}: {response.url.host} answered {status} {reason}"
    if status in _TRY_AGAIN:
        pause_s = _retry_after_s(response.headers.get("retry-after", ""))
        return DownloadError(said, retryable=True, retry_after_s=pause_s)
    if status == HTTPStatus.NOT_FOUND:
        said += "; check repository, revision and file name"
    elif status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        said += f"; {_credentials_advice(response.url, wanted)}"
    return DownloadError(said, retryable=False)


def _credentials_advice(url: httpx.URL, wanted: Wanted) -> str:
    if not wanted.is_at_hub(url):
        return "it wants credentials, which are sent to the hub only"
    if wanted.token:
        return "HF_TOKEN may not read it: accept the model's terms on its page at the hub"
    return "set HF_TOKEN if it is private or gated, and check its name if it is not"


def _retry_after_s(value: str) -> float:
    """Seconds until the moment that a Retry-After header names; 0 where it names none."""
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, moment.timestamp() - datetime.now(UTC).timestamp())
