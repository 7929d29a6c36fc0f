# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The messages of a chat: checked, and brought into the one form that runtimes understand."""

import json
from dataclasses import dataclass, field

from helexa.gateway.fields import ARRAY, OBJECT, STRING, Fields, bad, unsupported, wrong_type
from helexa.protocol.errors import BadRequestError
from helexa.protocol.messages.models import Workload

ROLES = {
    "system": "system",
    # Runtimes drop a role that the model's template does not know, and its text with it.
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_TOKENS = 64
"""Estimate for one image, a low one: too high an estimate refuses what would fit."""
PREFIX_BYTES = 4096
BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 4
"""What a template adds to a message, about."""


@dataclass(slots=True)
class Conversation:
    """A chat's messages and what they need."""

    messages: list[Fields] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Every text in them."""
    leading: int | None = None
    """How many of the texts come up to the first user message; `None`: all of them."""
    needs: set[str] = field(default_factory=set)
    images: int = 0


def count_tokens(texts: list[str], messages: int, images: int = 0) -> int:
    """Return an estimate of the tokens of so many messages with these texts."""
    if all(map(str.isascii, texts)):
        size = sum(map(len, texts))
    else:
        size = sum(len(text.encode(errors="replace")) for text in texts)
    return size // BYTES_PER_TOKEN + MESSAGE_TOKENS * messages + IMAGE_TOKENS * images


def beginning(texts: list[str]) -> bytes:
    """Return the first of the texts up to the first user message: the same over a chat's turns."""
    return "\0".join(texts)[:PREFIX_BYTES].encode("utf-8", "surrogatepass")


def read_messages(value: object) -> Conversation:
    """Return the conversation in a body's `messages`, whose parts are changed in their place.

    Raises:
        BadRequestError: a message is not one; `param` names it.
    """
    if not isinstance(value, list):
        bad("messages", "'messages' is required.")
    if not value:
        bad("messages", "'messages' must hold at least one message.")
    made = Conversation(value)
    for position, message in enumerate(value):
        role = _read_message(made, message, position)
        if made.leading is None and role != "system":
            made.leading = len(made.texts)
    return made


def _read_message(made: Conversation, message: object, position: int) -> str:
    """Take in a message, and return its role."""
    if type(message) is not dict:
        wrong_type(f"messages[{position}]", OBJECT, message)
    asked = message.get("role")
    if type(asked) is not str or asked not in ROLES:
        known = ", ".join(ROLES)
        bad(f"messages[{position}].role", f"{asked!r} is not a role; there are: {known}.")
    role = message["role"] = ROLES[asked]
    if "tool_calls" in message:
        _read_tool_calls(message, f"messages[{position}].tool_calls")
    content = message.get("content")
    if type(content) is str:
        made.texts.append(content)
    elif content is None:
        message["content"] = None if "tool_calls" in message else ""
    elif isinstance(content, list):
        for number, part in enumerate(content):
            _read_part(made, part, f"messages[{position}].content[{number}]")
    else:
        wrong_type(f"messages[{position}].content", f"{STRING} or {ARRAY}", content)
    return role


def _read_part(made: Conversation, part: object, where: str) -> None:
    if not isinstance(part, dict):
        wrong_type(where, OBJECT, part)
    kind = part.get("type")
    if not isinstance(kind, str):
        bad(f"{where}.type", "Each part of a message's content has a 'type'.")
    if kind in TEXT_PARTS:
        _read_text(made, part, where)
    elif kind.endswith("_url"):
        _read_media(made, part, kind, where)
    elif kind == "input_audio":
        made.needs.add(Workload.AUDIO)
    elif kind in ("file", "input_file", "input_image"):
        unsupported(f"{where}.type", f"Parts of type {kind!r} cannot be read here.")


def _read_text(made: Conversation, part: Fields, where: str) -> None:
    text = part.get("text")
    if not isinstance(text, str):
        wrong_type(f"{where}.text", STRING, text)
    made.texts.append(text)
    part["type"] = "text"


def _read_media(made: Conversation, part: Fields, kind: str, where: str) -> None:
    source = part.get(kind)
    if isinstance(source, str):
        source = part[kind] = {"url": source}
    url = source.get("url") if isinstance(source, dict) else None
    if not isinstance(url, str):
        bad(f"{where}.{kind}", f"A part of type {kind!r} has a 'url'.")
    # A runtime would fetch any other address from inside the operator's network.
    if not url[:5].lower() == "data:" or "," not in url:
        raise BadRequestError(
            "Images and other media are taken as data URLs only: 'data:image/png;base64,…'.",
            param=f"{where}.{kind}",
            reason="invalid_image_url",
        )
    if kind == "audio_url":
        made.needs.add(Workload.AUDIO)
    else:
        made.needs.add(Workload.VISION)
        made.images += 1


def _read_tool_calls(message: Fields, where: str) -> None:
    calls = message["tool_calls"]
    if calls is None:
        del message["tool_calls"]
        return
    if not isinstance(calls, list):
        wrong_type(where, ARRAY, calls)
    for position, call in enumerate(calls):
        if not isinstance(call, dict):
            wrong_type(f"{where}[{position}]", OBJECT, call)
        called = call.get("function")
        if isinstance(called, dict) and isinstance(called.get("arguments"), dict):
            called["arguments"] = json.dumps(called["arguments"])
