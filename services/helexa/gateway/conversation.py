# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The messages of a chat: checked, and brought into the one form that runtimes understand."""

import json
from dataclasses import dataclass, field
from hashlib import blake2b

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
    needs: set[str] = field(default_factory=set)
    text_bytes: int = 0
    images: int = 0
    _prefix: list[str] = field(default_factory=list)

    @property
    def prompt_tokens(self) -> int:
        """An estimate."""
        overhead = MESSAGE_TOKENS * len(self.messages) + IMAGE_TOKENS * self.images
        return self.text_bytes // BYTES_PER_TOKEN + overhead

    @property
    def prefix_hash(self) -> str:
        """Digest of everything up to the first user message: the same over a chat's turns."""
        leading = "\0".join(self._prefix)[:PREFIX_BYTES]
        return blake2b(leading.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def add_text(self, text: str, *, leads: bool) -> None:
        """Count a piece of text."""
        self.text_bytes += len(text) if text.isascii() else len(text.encode(errors="replace"))
        if leads:
            self._prefix.append(text)


def read_messages(value: object) -> Conversation:
    """Return the conversation in a body's `messages`.

    Raises:
        BadRequestError: a message is not one; `param` names it.
    """
    if not isinstance(value, list):
        bad("messages", "'messages' is required.")
    if not value:
        bad("messages", "'messages' must hold at least one message.")
    made = Conversation()
    leads = True
    for position, each in enumerate(value):
        message = _read_message(made, each, f"messages[{position}]", leads=leads)
        made.messages.append(message)
        leads = leads and message["role"] == "system"
    return made


def _read_message(made: Conversation, value: object, where: str, *, leads: bool) -> Fields:
    if not isinstance(value, dict):
        wrong_type(where, OBJECT, value)
    message: Fields = dict(value)
    asked = message.get("role")
    role = ROLES.get(asked) if isinstance(asked, str) else None
    if role is None:
        known = ", ".join(ROLES)
        bad(f"{where}.role", f"{asked!r} is not a role; there are: {known}.")
    message["role"] = role
    if message.get("tool_calls") is not None:
        message["tool_calls"] = _read_tool_calls(message["tool_calls"], f"{where}.tool_calls")
    else:
        message.pop("tool_calls", None)
    message["content"] = _read_content(made, message, f"{where}.content", leads=leads)
    return message


def _read_content(made: Conversation, message: Fields, where: str, *, leads: bool) -> object:
    content = message.get("content")
    if content is None:
        return None if "tool_calls" in message else ""
    if isinstance(content, str):
        made.add_text(content, leads=leads)
        return content
    if not isinstance(content, list):
        wrong_type(where, f"{STRING} or {ARRAY}", content)
    return [
        _read_part(made, part, f"{where}[{position}]", leads=leads)
        for position, part in enumerate(content)
    ]


def _read_part(made: Conversation, value: object, where: str, *, leads: bool) -> Fields:
    if not isinstance(value, dict):
        wrong_type(where, OBJECT, value)
    part: Fields = dict(value)
    kind = part.get("type")
    if not isinstance(kind, str):
        bad(f"{where}.type", "Each part of a message's content has a 'type'.")
    if kind in TEXT_PARTS:
        _read_text(made, part, where, leads=leads)
    elif kind.endswith("_url"):
        _read_media(made, part, kind, where)
    elif kind == "input_audio":
        made.needs.add(Workload.AUDIO)
    elif kind in ("file", "input_file", "input_image"):
        unsupported(f"{where}.type", f"Parts of type {kind!r} cannot be read here.")
    return part


def _read_text(made: Conversation, part: Fields, where: str, *, leads: bool) -> None:
    text = part.get("text")
    if not isinstance(text, str):
        wrong_type(f"{where}.text", STRING, text)
    made.add_text(text, leads=leads)
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


def _read_tool_calls(value: object, where: str) -> list[Fields]:
    if not isinstance(value, list):
        wrong_type(where, ARRAY, value)
    calls: list[Fields] = []
    for position, each in enumerate(value):
        if not isinstance(each, dict):
            wrong_type(f"{where}[{position}]", OBJECT, each)
        call: Fields = dict(each)
        called = call.get("function")
        if isinstance(called, dict) and isinstance(called.get("arguments"), dict):
            call["function"] = {**called, "arguments": json.dumps(called["arguments"])}
        calls.append(call)
    return calls
