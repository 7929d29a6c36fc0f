# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bodies of requests that go on from a partial answer, in the ways that backends understand."""

import json
from collections.abc import Callable

from helexa.protocol.errors import BackendError, ModelFailedError, UnsupportedError
from helexa.protocol.messages.models import ContinuationWay

Fields = dict[str, object]
Way = Callable[[Fields, str], Fields]


def after_assistant_message(fields: Fields, text: str) -> Fields:
    """Return a chat whose last message of the assistant is `text`, joined to one that is there.

    Raises:
        UnsupportedError: what is there is no text.
    """
    messages = _messages(fields)
    last = messages[-1] if messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return fields | {"messages": [*messages, {"role": "assistant", "content": text}]}
    before = last.get("content")
    if not isinstance(before, str):
        raise UnsupportedError("a message with parts cannot be continued")
    return fields | {"messages": [*messages[:-1], last | {"content": before + text}]}


def after_final_message(fields: Fields, text: str) -> Fields:
    """Return the same for a backend that answers a last message unless it is told to continue it.

    Raises:
        UnsupportedError: as `after_assistant_message`.
    """
    flags: Fields = {"continue_final_message": True, "add_generation_prompt": False}
    if fields.get("continue_final_message") is True:
        return after_assistant_message(fields, text) | flags
    message = {"role": "assistant", "content": text}
    return fields | {"messages": [*_messages(fields), message]} | flags


def after_prompt(fields: Fields, text: str) -> Fields:
    """Return a text completion that goes on after `text`: any backend can do that.

    Raises:
        UnsupportedError: the prompt is no text.
    """
    prompt = fields.get("prompt")
    if not isinstance(prompt, str):
        raise UnsupportedError("a prompt of tokens cannot be continued")
    return fields | {"prompt": prompt + text}


def continued(body: bytes, way: Way, text: str, tokens: int) -> tuple[bytes, bool]:
    """Return the body that goes on after `text`, and whether there is room for another token.

    Without room one token is asked for all the same: the backend then says why the answer ended
    and counts its prompt.

    Args:
        body: The request as it was made.
        way: How the backend is told.
        text: The answer so far; empty: only its first event has been seen.
        tokens: Of `text`, which its limit covers too.

    Raises:
        UnsupportedError: this request cannot be continued.
        BackendError: the body is no JSON object.
    """
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise BackendError("the request is no JSON") from error
    if not isinstance(fields, dict):
        raise BackendError("the request is no JSON object")
    if text:
        fields = way(fields, text)
    limit = fields.get("max_tokens")
    has_room = not isinstance(limit, int) or limit > tokens
    if isinstance(limit, int):
        fields["max_tokens"] = max(1, limit - tokens)
    return json.dumps(fields, separators=(",", ":")).encode(), has_room


def way_of(configured: str | None, own: str = ContinuationWay.NONE) -> Way | None:
    """Return how a backend is told to continue a chat, `None` where it cannot.

    Args:
        configured: What the model's configuration says.
        own: What counts where it says nothing.

    Raises:
        ModelFailedError: the configuration names a way that is not known.
    """
    name = configured or own
    if name not in WAYS:
        known = ", ".join(WAYS)
        raise ModelFailedError(f"there is no way to continue called {name!r}; known are {known}")
    return WAYS[name]


WAYS: dict[str, Way | None] = {
    ContinuationWay.ASSISTANT_MESSAGE: after_assistant_message,
    ContinuationWay.CONTINUE_FINAL_MESSAGE: after_final_message,
    ContinuationWay.NONE: None,
}


def _messages(fields: Fields) -> list[object]:
    messages = fields.get("messages")
    return messages if isinstance(messages, list) else []
