# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the neuron asks of a model's runtime.

A runtime implements `Backend` and one or more of the inference protocols; which of them count for a
model is said by its capability.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from helexa.protocol.messages.models import ModelCapability, ModelConfig

Take = Callable[[list[bytes]], bool]
"""Takes events, and returns whether it takes more now. It must not block."""


class EventStream(Protocol):
    """A running answer of a backend.

    Iterating yields, for each read from the backend, the events that it completed: the JSON of each
    event as bytes, without ``data: `` and without the end mark.
    """

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Yield events as they come.

        Raises:
            BackendError: the backend closed without its end mark, or reported an error.
        """

    async def pump(self, take: Take) -> bool:
        """Give the events to `take` as they come, which costs less than iterating; raises alike.

        Returns:
            Whether the answer has ended; else `take` has asked for a pause, until the next call.
        """

    async def aclose(self) -> None:
        """Close the connection, which makes the backend stop generating. Safe to call twice."""


@runtime_checkable
class ChatInference(Protocol):
    """Answers chats."""

    async def chat(self, body: bytes) -> EventStream:
        """Start a chat completion; `body` is OpenAI's JSON with `stream: true`.

        Raises:
            BackendRejectedError: the backend calls the request bad (`status` in its details).
            BackendError: the backend cannot be reached or failed.
        """


@runtime_checkable
class TextInference(Protocol):
    """Continues text."""

    async def complete(self, body: bytes) -> EventStream:
        """Start a text completion; raises as `ChatInference.chat`."""


@runtime_checkable
class WholeInference(Protocol):
    """Gives answers in one piece."""

    stops_when_left: bool
    """Whether closing the connection ends the work, also before anything of the answer has come.
    Where not, only a stream can be stopped."""

    async def answer_chat(self, body: bytes) -> bytes:
        """Return OpenAI's JSON answer to a chat; `body` does not ask for a stream.

        The answer is waited for without a limit. Raises as `ChatInference.chat`.
        """

    async def answer_completion(self, body: bytes) -> bytes:
        """Return OpenAI's JSON answer to a text completion; otherwise as `answer_chat`."""


@runtime_checkable
class EmbeddingInference(Protocol):
    """Turns text into vectors."""

    async def embed(self, body: bytes) -> bytes:
        """Return OpenAI's JSON answer for a batch of inputs; raises as `ChatInference.chat`."""


@runtime_checkable
class VisionInference(Protocol):
    """Answers chats whose messages hold images as data URLs."""

    async def describe(self, body: bytes) -> EventStream:
        """Start a chat completion with image parts; raises as `ChatInference.chat`."""


@runtime_checkable
class ChatContinuation(Protocol):
    """Goes on from a partial answer to a chat; the capability's `continues_partial` says so."""

    def continued_chat(self, fields: dict[str, object], text: str) -> dict[str, object]:
        """Return the request that makes the runtime go on after `text`, which it does not repeat.

        Raises:
            UnsupportedError: it cannot, or not for this request.
        """


class Backend(Protocol):
    """The life of one model's runtime."""

    config: ModelConfig
    capability: ModelCapability
    """What is known of the model: from its configuration, completed by `start`."""
    slots: int
    """Requests that it serves at once."""
    died: asyncio.Event
    """Set when the runtime is gone without having been stopped."""

    async def start(self, progress: Callable[[float], None]) -> None:
        """Start the runtime and return when it can serve.

        Args:
            progress: Called with 0 to 1 while weights are fetched or loaded.

        Raises:
            ModelFailedError: it cannot be started; the message holds the runtime's own reason.
        """

    async def stop(self, grace_s: float) -> None:
        """End the runtime and everything that it started; safe in any state."""

    async def probe(self) -> None:
        """Return if a request would be served now; being busy is no failure.

        Raises:
            BackendError: a request would fail.
        """

    def last_words(self) -> str:
        """Return the runtime's last log lines, for error messages."""

    def memory_bytes(self) -> int | None:
        """Return the resident memory of the runtime, `None` where it is not ours to measure."""
