# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A whole answer, made of the events of a stream."""

import json
import re
from dataclasses import dataclass, field

from helexa.gateway.fields import Fields, decode
from helexa.protocol.errors import BackendError
from helexa.protocol.messages.execution import Operation, TokenUsage

_MODEL = re.compile(rb'"model"\s*:\s*"(?:[^"\\]|\\.)*"')
_NO_TIER = re.compile(rb'"service_tier"\s*:\s*null')
_DATA = b"data:"


def events_of(text: bytes) -> list[bytes]:
    """Return the JSON of each event in a piece of stream."""
    lines = text.split(b"\n")
    return [line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA)]


def usage_fields(usage: TokenUsage) -> Fields:
    """Return token counts as OpenAI shows them; what is not known is absent, not zero."""
    shown: Fields = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens is not None:
        shown["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        shown["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return shown


@dataclass(slots=True)
class Assembly:
    """The answer so far."""

    operation: str
    public_id: str
    model: str
    created: int
    service_tier: str | None = None
    """Shown where the request named one."""
    fingerprint: str | None = None
    finish_reasons: list[str] = field(default_factory=list)
    _choices: dict[int, Fields] = field(default_factory=dict)

    def emptied(self) -> "Assembly":
        """Return the same answer without anything in it."""
        return Assembly(self.operation, self.public_id, self.model, self.created, self.service_tier)

    def add(self, text: bytes) -> None:
        """Take in a piece of the stream.

        Raises:
            BackendError: it is not JSON.
        """
        for event in events_of(text):
            try:
                chunk = decode(event)
            except (ValueError, RecursionError) as error:
                raise BackendError("the model's runtime sent an event that is no JSON") from error
            if isinstance(chunk, dict):
                self._add_chunk(chunk)

    def whole(self, usage: TokenUsage) -> bytes:
        """Return the answer's JSON.

        Raises:
            BackendError: there was nothing in the stream.
        """
        if not self._choices:
            raise BackendError("the model's runtime ended without an answer")
        ordered = [self._choices[index] for index in sorted(self._choices)]
        is_chat = self.operation == Operation.CHAT
        answer: Fields = {
            "id": self.public_id,
            "object": "chat.completion" if is_chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [_finished(choice) for choice in ordered] if is_chat else ordered,
            "usage": usage_fields(usage),
        }
        if self.service_tier is not None:
            answer["service_tier"] = self.service_tier
        if self.fingerprint is not None:
            answer["system_fingerprint"] = self.fingerprint
        return json.dumps(answer, separators=(",", ":"), ensure_ascii=True).encode()

    def _add_chunk(self, chunk: Fields) -> None:
        fingerprint = chunk.get("system_fingerprint")
        if isinstance(fingerprint, str):
            self.fingerprint = fingerprint
        choices = chunk.get("choices")
        for part in choices if isinstance(choices, list) else []:
            if isinstance(part, dict):
                self._add_choice(part)

    def _add_choice(self, part: Fields) -> None:
        given = part.get("index")
        index = given if isinstance(given, int) else 0
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = {"index": index, "logprobs": None}
            if self.operation == Operation.CHAT:
                choice["message"] = {"role": "assistant", "content": None}
            else:
                choice["text"] = ""
            choice["finish_reason"] = None
        message = choice.get("message")
        delta = part.get("delta")
        if isinstance(message, dict) and isinstance(delta, dict):
            _add_delta(message, delta)
        if isinstance(part.get("text"), str):
            choice["text"] = f"{choice.get('text', '')}{part['text']}"
        if isinstance(part.get("logprobs"), dict):
            choice["logprobs"] = _joined(choice.get("logprobs"), part["logprobs"])
        if isinstance(part.get("finish_reason"), str):
            choice["finish_reason"] = part["finish_reason"]
            self.finish_reasons.append(str(part["finish_reason"]))


def _add_delta(message: Fields, delta: Fields) -> None:
    for name, value in delta.items():
        if value is None or name == "role":
            continue
        if name == "tool_calls" and isinstance(value, list):
            calls = message.setdefault("tool_calls", {})
            for position, call in enumerate(value):
                if isinstance(calls, dict) and isinstance(call, dict):
                    _add_tool_call(calls, call, position)
        elif isinstance(value, str):
            held = message.get(name)
            message[name] = held + value if isinstance(held, str) else value
        else:
            message[name] = value


def _add_tool_call(calls: Fields, part: Fields, position: int) -> None:
    index = part.get("index")
    key = str(index if isinstance(index, int) else position)
    call = calls.setdefault(key, {"id": "", "type": "function", "function": {}})
    if not isinstance(call, dict):
        return
    if isinstance(part.get("id"), str):
        call["id"] = part["id"]
    called = part.get("function")
    function = call["function"]
    if isinstance(called, dict) and isinstance(function, dict):
        if isinstance(called.get("name"), str):
            function["name"] = function.get("name", "") + called["name"]
        function.setdefault("arguments", "")
        if isinstance(called.get("arguments"), str):
            function["arguments"] += called["arguments"]


def _finished(choice: Fields) -> Fields:
    message = choice["message"]
    if isinstance(message, dict) and isinstance(message.get("tool_calls"), dict):
        calls = message["tool_calls"]
        message["tool_calls"] = [calls[key] for key in sorted(calls, key=int)]
    return choice


def _joined(held: object, part: object) -> object:
    """Return two pieces of log probabilities as one: lists are joined, in any runtime's layout."""
    if not isinstance(held, dict) or not isinstance(part, dict):
        return part
    joined = dict(held)
    for name, value in part.items():
        before = joined.get(name)
        if isinstance(before, list) and isinstance(value, list):
            joined[name] = [*before, *value]
        elif value is not None:
            joined[name] = value
    return joined


def with_tier(body: bytes, tier: str | None) -> bytes:
    """Return an answer's JSON with its `service_tier`; `None` leaves it as it is."""
    if tier is None:
        return body
    field = b'"service_tier":"%b"' % tier.encode()
    replaced, count = _NO_TIER.subn(field, body, count=1)
    return replaced if count else body.replace(b"{", b"{" + field + b",", 1)


def with_model(body: bytes, model: str) -> bytes:
    """Return an answer's JSON with the public name in its first `model` field."""
    return _MODEL.sub(lambda _: b'"model":' + json.dumps(model).encode(), body, count=1)
