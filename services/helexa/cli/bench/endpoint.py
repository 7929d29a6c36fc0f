# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The endpoint that is measured: where it is, how it is asked, how a connection to it is made."""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from helexa.cli.bench.connection import Clock, Connection
from helexa.process.settings import SettingsError

CONNECT_WITHIN_S = 10.0
CHAT, MODELS = "/chat/completions", "/models"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible API over HTTP/1.1."""

    url: str
    """With the path below which the API is, such as `/v1`."""
    host: str
    port: int
    path: str
    authority: str
    key: str | None = None
    tls: ssl.SSLContext | None = None

    @property
    def chat(self) -> Callable[[bytes], bytes]:
        """What makes the request of a body, as it goes on the wire."""
        begin = self._head("POST", CHAT) + b"Content-Type: application/json\r\nContent-Length: "
        return lambda body: begin + str(len(body)).encode() + b"\r\n\r\n" + body

    @property
    def models(self) -> bytes:
        """The request for the list of models."""
        return self._head("GET", MODELS) + b"\r\n"

    async def connect(self, clock: Clock) -> Connection:
        """Return a new connection.

        Raises:
            OSError: there is none; of TLS a subclass.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_WITHIN_S):
            _, connection = await loop.create_connection(
                lambda: Connection(clock), self.host, self.port, ssl=self.tls
            )
        return connection

    def _head(self, method: str, path: str) -> bytes:
        lines = [
            f"{method} {self.path}{path} HTTP/1.1",
            f"Host: {self.authority}",
            "User-Agent: helexa-bench",
            "Accept: application/json, text/event-stream",
        ]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        return "".join(f"{line}\r\n" for line in lines).encode()


def endpoint(url: str, key: str | None, ca_file: Path | None = None) -> Endpoint:
    """Return the endpoint at `url`, whose path is `/v1` unless it has one.

    Raises:
        SettingsError: `url` is not an address, or the key or the file cannot be used.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise SettingsError(f"{url!r} is not an address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{url!r} is not an address like http://127.0.0.1:8080")
    if key and not (key.isascii() and key.isprintable()):
        raise SettingsError("the key is not one line of ASCII")
    authority = parts.netloc.rpartition("@")[2]
    path = parts.path.rstrip("/").removesuffix(CHAT) or "/v1"
    return Endpoint(
        url=f"{parts.scheme}://{authority}{path}",
        host=parts.hostname,
        port=port,
        path=path,
        authority=authority,
        key=key,
        tls=_tls(ca_file) if parts.scheme == "https" else None,
    )


def chat_body(
    model: str, prompt: str, *, streamed: bool, max_tokens: int, extra: Mapping[str, object]
) -> bytes:
    """Return the body of one request."""
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
    }
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body | dict(extra)).encode()


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SettingsError(f"--ca-file: {ca_file} holds no certificate") from error
