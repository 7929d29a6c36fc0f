# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A backend's events made ours without parsing them: our id, our model name, and the counts.

Only the first event and those with counts are parsed. The backend's id is random and its literal
`"id":"…"` cannot stand inside a JSON string unescaped, so replacing bytes is exact.
"""

import json
import re
from dataclasses import dataclass
from typing import cast

import msgspec

from helexa.protocol.messages.execution import TokenUsage

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_USAGE = re.compile(rb'"usage": ?\{')
_FINISH = re.compile(rb'"finish_reason": ?"')
_GREETING = re.compile(rb'"content": ?(?:null|"")')
"""In the event that only names the role, which comes before the first token."""
_SPECIAL = re.compile(rb'"(?:usage": ?\{|finish_reason": ?"|content": ?(?:null|""))')
"""Any of these three."""
_OTHER_CONTENT = (b'"tool_calls"', b'"reasoning')
_CREATED = re.compile(rb'"created"\s*:\s*\d+')


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a client has of an answer already."""

    tokens: int = 0
    created: int | None = None
    """Unix time in seconds, for all events to come."""
    has_room: bool = True
    """Whether the answer's limit leaves room for more; if not, only its end is of use."""

    def own(self, usage: TokenUsage) -> TokenUsage:
        """Return what was done from here on, where `usage` counts the prefix as prompt."""
        prompt = max(0, usage.prompt_tokens - self.tokens)
        cached = usage.cached_tokens
        known = {
            "prompt_tokens": prompt,
            "completion_tokens": usage.completion_tokens if self.has_room else 0,
            "cached_tokens": None if cached is None else min(cached, prompt),
        }
        return usage.model_copy(update=known)

    def whole(self, own: TokenUsage) -> TokenUsage:
        """Return the counts of the whole answer."""
        return own.model_copy(update={"completion_tokens": own.completion_tokens + self.tokens})


class Splicer:
    """Rewrites the events of one answer and counts its tokens."""

    def __init__(self, public_id: str, model: str, prefix: Prefix | None = None) -> None:
        """Give the answer the id and the model name that the client shall see.

        With a `prefix`, an earlier part of the answer has been sent, and the first event with it.
        """
        self.usage: TokenUsage | None = None
        """What the backend counted, once it has said so."""
        self.content_events = 0
        """Events that carry content, in case that the backend never counts."""
        self.other_events = 0
        """Events for the client that carry none."""
        self._prefix = prefix
        self._public = {"id": public_id, "model": model}
        self._has_learned = False
        self._replacements: list[tuple[bytes, bytes]] = []
        self._usage_events: list[dict[str, Json]] = []

    def take(self, events: list[bytes]) -> list[bytes]:
        """Return what of `events` goes to the client, as it goes there."""
        if not self._has_learned and events:
            self._learn(events[0])
        kept = []
        for event in events:
            if self._prefix is None and not _SPECIAL.search(event):
                self.content_events += 1
            elif not self._is_for_client(event):
                continue
            kept.append(self._spliced(event))
        return kept

    def _is_for_client(self, event: bytes) -> bool:
        """Count any event; return whether it goes to the client."""
        if _USAGE.search(event) and self._is_usage_only(event):
            return False
        if self._is_known(event):
            return False
        if _has_content(event):
            self.content_events += 1
        else:
            self.other_events += 1
        return True

    def _is_known(self, event: bytes) -> bool:
        """Whether the client has this already, or must not have it."""
        if self._prefix is None:
            return False
        has_content = _has_content(event)
        is_greeting = not (has_content or _FINISH.search(event) or self.content_events)
        return is_greeting or (has_content and not self._prefix.has_room)

    def usage_event(self) -> bytes | None:
        """Return one event with the counts of the whole answer, if the backend gave any.

        A backend sends one for each choice: completions add up, the prompt counts once.
        """
        if not self._usage_events or self.usage is None:
            return None
        event = dict(self._usage_events[-1])
        counts = event.get("usage")
        if isinstance(counts, dict) and (self._prefix is not None or len(self._usage_events) > 1):
            event["usage"] = _shown(counts, self._whole(self.usage))
        for key in ("id", "model"):
            if key in event:
                event[key] = self._public[key]
        if self._prefix is not None and self._prefix.created is not None:
            event["created"] = self._prefix.created
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()

    def _whole(self, usage: TokenUsage) -> TokenUsage:
        return self._prefix.whole(self._prefix.own(usage)) if self._prefix else usage

    def _learn(self, event: bytes) -> None:
        self._has_learned = True
        first = _object(event)
        for key, public in self._public.items():
            theirs = first.get(key)
            if not isinstance(theirs, str) or theirs == public:
                continue
            ways = [msgspec.json.encode(theirs)]
            if not theirs.isascii():
                ways.append(json.dumps(theirs).encode())
            for colon in (b":", b": "):
                name = b'"%b"%b' % (key.encode(), colon)
                ours = name + msgspec.json.encode(public)
                self._replacements += [(name + way, ours) for way in ways if name + way in event]

    def _spliced(self, event: bytes) -> bytes:
        for theirs, ours in self._replacements:
            event = event.replace(theirs, ours, 1)
        if self._prefix is not None and self._prefix.created is not None:
            event = _CREATED.sub(b'"created":%d' % self._prefix.created, event, count=1)
        return event

    def _is_usage_only(self, event: bytes) -> bool:
        """Take in the counts of an event, and return whether it holds nothing else."""
        parsed = _object(event)
        counts = parsed.get("usage")
        if not isinstance(counts, dict):
            return False
        if parsed.get("choices"):
            # A running total beside content; the last one counts.
            self.usage = read_usage(counts)
            return False
        self.usage = read_usage(counts, self.usage if self._usage_events else None)
        self._usage_events.append(parsed)
        return True


def read_usage(counts: dict[str, Json], before: TokenUsage | None = None) -> TokenUsage:
    """Return OpenAI's `usage` as counts; with `before`, those of all choices so far."""
    prompt = _count(counts, "prompt_tokens") or 0
    completion = _count(counts, "completion_tokens") or 0
    if before is not None:
        prompt = max(prompt, before.prompt_tokens)
        completion += before.completion_tokens
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=_count(counts, "cached_tokens", "prompt_tokens_details"),
        reasoning_tokens=_count(counts, "reasoning_tokens", "completion_tokens_details"),
    )


def _shown(counts: dict[str, Json], usage: TokenUsage) -> dict[str, Json]:
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    shown = counts | {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    details = counts.get("prompt_tokens_details")
    if isinstance(details, dict) and usage.cached_tokens is not None:
        shown["prompt_tokens_details"] = details | {"cached_tokens": usage.cached_tokens}
    return shown


def _count(counts: dict[str, Json], key: str, within: str | None = None) -> int | None:
    holder = counts.get(within) if within else counts
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, int) and value >= 0 else None


def _has_content(event: bytes) -> bool:
    if _FINISH.search(event):
        return False
    return not _GREETING.search(event) or any(mark in event for mark in _OTHER_CONTENT)


def _object(event: bytes) -> dict[str, Json]:
    try:
        parsed = cast("Json", _read(event))
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _read(event: bytes) -> object:
    try:
        return msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # It does not take all that Python's does, such as half of a surrogate pair.
        return json.loads(event)
