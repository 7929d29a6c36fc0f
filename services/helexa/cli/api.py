# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""An HTTP API of a site, asked by a command; needs nothing beyond the standard library."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ValidationError

from helexa.process.settings import SettingsError
from helexa.protocol.errors import HelexaError, UnavailableError

CONNECT_WITHIN_S = 5.0
ANSWER_WITHIN_S = 60.0
DONE = "[DONE]"

Json = Mapping[str, object]
ViewT = TypeVar("ViewT", bound=BaseModel)


class AnswerError(HelexaError):
    """The site's answer says that it cannot be done."""

    code = "answer"


class Api:
    """One HTTP API with its key."""

    def __init__(self, name: str, url: str, key: str | None) -> None:
        """Name the API for messages, and where it is.

        Raises:
            SettingsError: `url` is not an HTTP address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"{url!r} is not an address like http://127.0.0.1:8080")
        self.name = name
        self.url = url
        self._parts = parts
        self._key = key

    def get(self, path: str) -> dict[str, object]:
        """Return what is at `path`.

        Raises:
            UnavailableError: nobody answers.
            AnswerError: the answer is not a success.
        """
        return self.call("GET", path)

    def read(self, path: str, kind: type[ViewT]) -> ViewT:
        """Return what is at `path`, as `kind`.

        Raises:
            UnavailableError: nobody answers.
            AnswerError: the answer is not a success, or another kind of thing.
        """
        try:
            return kind.model_validate(self.get(path))
        except ValidationError as error:
            raise AnswerError(
                f"{self.name} at {self.url} answers {path} in a way that this "
                "version does not understand"
            ) from error

    def call(self, method: str, path: str, body: Json | None = None) -> dict[str, object]:
        """Return the answer to one request.

        Raises:
            UnavailableError: nobody answers.
            AnswerError: the answer is not a success.
        """
        with closing(self._connection(ANSWER_WITHIN_S)) as connection:
            answer = self._send(connection, method, path, body)
            try:
                found = json.loads(answer.read() or b"{}")
            except (ValueError, OSError, http.client.HTTPException) as error:
                raise AnswerError(f"{self.name} at {self.url} did not answer with JSON") from error
        return found if isinstance(found, dict) else {"data": found}

    def stream(self, path: str, body: Json, *, idle_s: float) -> Iterator[dict[str, object]]:
        """Yield the events of a streamed answer until its end.

        Raises:
            UnavailableError: nobody answers, or the stream breaks off.
            AnswerError: the answer, or an event of it, is an error.
        """
        with closing(self._connection(idle_s)) as connection:
            answer = self._send(connection, "POST", path, body)
            try:
                for raw in answer:
                    line = raw.decode(errors="replace").strip()
                    if line == f"data: {DONE}":
                        return
                    if line.startswith("data: "):
                        event = json.loads(line.removeprefix("data: "))
                        if "error" in event:
                            raise AnswerError(_message(event))
                        yield event
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise self._lost(error) from error
        raise UnavailableError("the answer broke off before its end")

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=CONNECT_WITHIN_S)
        try:
            connection.connect()
        except OSError as error:
            raise self._lost(error) from error
        connection.sock.settimeout(timeout_s)
        return connection

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Json | None
    ) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json, text/event-stream"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, self._parts.path + path, body=data, headers=headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise AnswerError(self._refusal(answer.status, answer.read()))
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        return answer

    def _refusal(self, status: int, body: bytes) -> str:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if isinstance(found, dict) and "error" in found:
            return _message(found)
        return f"{self.name} at {self.url} answered with status {status}"

    def _lost(self, error: Exception) -> UnavailableError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return UnavailableError(f"{self.name} at {self.url} does not answer ({reason}); is it up?")


def segment(name: str) -> str:
    """Return `name` as one segment of a path."""
    return quote(name, safe="")


def _message(found: Json) -> str:
    error = found["error"]
    if isinstance(error, dict):
        return str(error.get("message") or error.get("code") or error)
    return str(error)
