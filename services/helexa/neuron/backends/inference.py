# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Inference over OpenAI's HTTP interface, which nearly every runtime speaks."""

from collections.abc import AsyncIterator, Callable, Coroutine
from http import HTTPStatus

from helexa.neuron.backends.client import HttpClient
from helexa.neuron.backends.continuing import Fields, Way
from helexa.neuron.backends.events import EventSplitter
from helexa.neuron.backends.faults import ERROR_MARK, error_of_event, error_of_response
from helexa.neuron.backends.interface import Take
from helexa.neuron.backends.limits import Timeouts
from helexa.neuron.backends.response import Response
from helexa.protocol.errors import (
    BackendError,
    HelexaError,
    StreamInterruptedError,
    UnsupportedError,
)

_MAX_ERROR_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 256 << 20
_WHOLE = Timeouts(first_byte_s=86_400.0)
"""Whoever waits for a whole answer knows how long; of its length the silence says nothing."""

Rewrite = Callable[[bytes], bytes]


def unchanged(data: bytes) -> bytes:
    """Return `data`."""
    return data


def _waits(_: list[bytes]) -> bool:
    return False


class ResponseEvents:
    """The events of a running response.

    Args:
        response: its head has come, with status 200.
        rewrite: applied to the JSON of each event.
    """

    def __init__(self, response: Response, rewrite: Rewrite = unchanged) -> None:
        self._response = response
        self._rewrite = rewrite
        self._splitter = EventSplitter()
        self._has_begun = False
        self._failure: HelexaError | None = None
        self._is_rewritten = rewrite is not unchanged
        self._take: Take = _waits

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        return self

    async def __anext__(self) -> list[bytes]:
        while self._failure is None and not self._splitter.is_done:
            events = self._healthy(await self._next())
            if events:
                self._has_begun = True
                return events
        if self._failure is not None:
            self._response.close()
            raise self._failure
        raise StopAsyncIteration

    async def pump(self, take: Take) -> bool:
        """Give `take` the events of each read where they are read; otherwise as iterating.

        Returns:
            Whether the answer has ended; else `take` has asked for a pause.
        """
        try:
            if not self._is_over:
                self._take = take
                is_read = await self._response.pour(self._pass_on)
                if is_read and not self._is_over:
                    self._pass_on(b"")
        except BackendError as error:
            self._failure = self._interrupted() if self._response.was_cut else error
        if self._failure is not None:
            self._response.close()
            raise self._failure
        if self._splitter.is_done:
            self._response.discard()
        return self._splitter.is_done

    def _pass_on(self, data: bytes) -> bool:
        """Pass on the events that `data` completes; return whether more may come."""
        goes_on, splitter = True, self._splitter
        try:
            events = splitter.feed(data) if data else splitter.finish()
            if self._is_rewritten or ERROR_MARK in b"".join(events):
                events = self._healthy(events)
            if events:
                self._has_begun = True
                goes_on = self._take(events)
        except HelexaError as error:
            # It must not leave the socket's callback.
            self._failure = self._failure or error
        if not (data or splitter.is_done):
            self._failure = self._failure or self._interrupted()
        return goes_on and self._failure is None and not splitter.is_done

    @property
    def _is_over(self) -> bool:
        return self._splitter.is_done or self._failure is not None

    async def aclose(self) -> None:
        """Close the connection unless the answer is whole; the backend stops generating."""
        self._response.close()

    async def _next(self) -> list[bytes]:
        try:
            data = await self._response.read()
            events = self._splitter.feed(data) if data else self._splitter.finish()
        except BackendError as error:
            self._failure = self._interrupted() if self._response.was_cut else error
            return []
        if self._splitter.is_done:
            self._response.discard()
        elif not data:
            self._failure = self._interrupted()
        return events

    def _interrupted(self) -> BackendError:
        kind = StreamInterruptedError if self._has_begun else BackendError
        return kind("the backend closed without its end mark")

    def _healthy(self, events: list[bytes]) -> list[bytes]:
        for place, event in enumerate(events):
            error = error_of_event(event) if ERROR_MARK in event else None
            if error is not None:
                self._failure = error
                return [self._rewrite(each) for each in events[:place]]
        if self._rewrite is unchanged:
            return events
        return [self._rewrite(event) for event in events]


class HttpInference:
    """Chats, completions and embeddings of the server that it is connected to.

    Subclasses decide when it is connected, and may rewrite what is sent and what is answered.
    """

    def __init__(self) -> None:
        self._client: HttpClient | None = None
        self._outgoing: Rewrite = unchanged
        self._incoming: Rewrite = unchanged
        self.way: Way | None = None
        """How the server is told to go on from a partial answer to a chat; `None`: it cannot."""
        self.stops_when_left = False

    # Each of these is one level less to wake through than if it waited itself.

    def chat(self, body: bytes) -> Coroutine[None, None, ResponseEvents]:
        """Start a chat completion; `body` is OpenAI's JSON with `stream: true`.

        Raises:
            BackendRejectedError: the backend calls the request bad (`status` in its details).
            ContextLengthError: the prompt is longer than the context.
            UnsupportedError: the model cannot do what is asked.
            BusyError: the backend takes no more requests now.
            ModelLoadingError: the backend is not ready yet.
            BackendError: the backend cannot be reached or failed.
        """
        return self._stream("/v1/chat/completions", body)

    def complete(self, body: bytes) -> Coroutine[None, None, ResponseEvents]:
        """Start a text completion; raises as `chat`."""
        return self._stream("/v1/completions", body)

    def describe(self, body: bytes) -> Coroutine[None, None, ResponseEvents]:
        """Start a chat completion with image parts; raises as `chat`."""
        return self._stream("/v1/chat/completions", body)

    def answer_chat(self, body: bytes) -> Coroutine[None, None, bytes]:
        """Return OpenAI's JSON answer to a chat, however long it takes; raises as `chat`."""
        return self._whole("/v1/chat/completions", body)

    def answer_completion(self, body: bytes) -> Coroutine[None, None, bytes]:
        """Return OpenAI's JSON answer to a text completion; otherwise as `answer_chat`."""
        return self._whole("/v1/completions", body)

    def continued_chat(self, fields: Fields, text: str) -> Fields:
        """Return the request that makes the server go on after `text`.

        Raises:
            UnsupportedError: it cannot, or not for this request.
        """
        if self.way is None:
            raise UnsupportedError("this backend cannot go on from a partial answer")
        return self.way(fields, text)

    async def embed(self, body: bytes) -> bytes:
        """Return OpenAI's JSON answer for a batch of inputs; raises as `chat`."""
        return self._incoming(await self._whole("/v1/embeddings", body, None))

    def connected(self) -> HttpClient:
        """Return the client of the running server.

        Raises:
            BackendError: there is none.
        """
        if self._client is None:
            raise BackendError("the backend is not running")
        return self._client

    def connect(self, client: HttpClient) -> None:
        """Send requests through `client` from now on."""
        self.disconnect()
        self._client = client

    def disconnect(self) -> None:
        """Close all connections; answers under way break off."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _stream(self, path: str, body: bytes) -> ResponseEvents:
        response = await self._post(path, body)
        if _is_stream(response):
            return ResponseEvents(response, self._incoming)
        try:
            answer = await response.read_all(_MAX_ERROR_BYTES)
        finally:
            response.close()
        error = error_of_event(answer)
        raise error or BackendError("the backend does not stream its answers")

    async def _whole(self, path: str, body: bytes, timeouts: Timeouts | None = _WHOLE) -> bytes:
        response = await self._post(path, body, timeouts)
        try:
            if _is_stream(response):
                # It knows nothing else, so that from now on it is asked for one.
                self.stops_when_left = False
                raise BackendError("the backend answers with streams only")
            return await response.read_all(_MAX_ANSWER_BYTES)
        finally:
            response.close()

    async def _post(self, path: str, body: bytes, timeouts: Timeouts | None = None) -> Response:
        sent = self._outgoing(body)
        response = await self.connected().send("POST", path, sent, timeouts=timeouts)
        if response.status == HTTPStatus.OK:
            return response
        try:
            text = await response.read_all(_MAX_ERROR_BYTES)
        except BackendError:
            text = b""
        finally:
            response.close()
        raise error_of_response(response.status, response.headers, text)


def _is_stream(response: Response) -> bool:
    return response.headers.get("content-type", "").startswith("text/event-stream")
