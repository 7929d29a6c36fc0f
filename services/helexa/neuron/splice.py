# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A backend's events made ours without parsing them: our id, our model name, and the counts.

Only the first event and those with counts are parsed. The backend's id is random and its literal
`"id":"…"` cannot stand inside a JSON string unescaped, so replacing bytes is exact.
"""

import json
from typing import cast

from helexa.protocol.messages.execution import TokenUsage

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_USAGE_MARKS = (b'"usage":{', b'"usage": {')
_FINISH_MARKS = (b'"finish_reason":"', b'"finish_reason": "')
_GREETING_MARKS = (b'"content":null', b'"content": null', b'"content":""', b'"content": ""')
"""In the event that only names the role, which comes before the first token."""
_OTHER_CONTENT = (b'"tool_calls"', b'"reasoning')


class Splicer:
    """Rewrites the events of one answer and counts its tokens."""

    def __init__(self, public_id: str, model: str) -> None:
        """Give the answer the id and the model name that the client shall see."""
        self.usage: TokenUsage | None = None
        """What the backend counted, once it has said so."""
        self.content_events = 0
        """Events that carry content, in case that the backend never counts."""
        self.other_events = 0
        """Events for the client that carry none."""
        self._public = {"id": public_id, "model": model}
        self._replacements: list[tuple[bytes, bytes]] | None = None
        self._usage_events: list[dict[str, Json]] = []

    def take(self, events: list[bytes]) -> list[bytes]:
        """Return what of `events` goes to the client, as it goes there."""
        kept = []
        for event in events:
            if self._replacements is None:
                self._learn(event)
            if any(mark in event for mark in _USAGE_MARKS) and self._is_usage_only(event):
                continue
            if _has_content(event):
                self.content_events += 1
            else:
                self.other_events += 1
            kept.append(self._spliced(event))
        return kept

    def usage_event(self) -> bytes | None:
        """Return one event with the counts of the whole answer, if the backend gave any.

        A backend sends one for each choice: completions add up, the prompt counts once.
        """
        if not self._usage_events or self.usage is None:
            return None
        event = dict(self._usage_events[-1])
        counts = event.get("usage")
        if len(self._usage_events) > 1 and isinstance(counts, dict):
            prompt, completion = self.usage.prompt_tokens, self.usage.completion_tokens
            event["usage"] = counts | {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }
        for key in ("id", "model"):
            if key in event:
                event[key] = self._public[key]
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()

    def _learn(self, event: bytes) -> None:
        self._replacements = []
        first = _object(event)
        for key, public in self._public.items():
            theirs = first.get(key)
            if not isinstance(theirs, str) or theirs == public:
                continue
            ours = json.dumps(public, ensure_ascii=False)
            for colon in (":", ": "):
                for ascii_only in (False, True):
                    literal = f'"{key}"{colon}{json.dumps(theirs, ensure_ascii=ascii_only)}'
                    if literal.encode() in event:
                        made = f'"{key}"{colon}{ours}'
                        self._replacements.append((literal.encode(), made.encode()))

    def _spliced(self, event: bytes) -> bytes:
        for theirs, ours in self._replacements or ():
            event = event.replace(theirs, ours, 1)
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
    earlier = before or TokenUsage()
    return TokenUsage(
        prompt_tokens=max(_count(counts, "prompt_tokens") or 0, earlier.prompt_tokens),
        completion_tokens=(_count(counts, "completion_tokens") or 0) + earlier.completion_tokens,
        cached_tokens=_count(counts, "cached_tokens", "prompt_tokens_details"),
        reasoning_tokens=_count(counts, "reasoning_tokens", "completion_tokens_details"),
    )


def _count(counts: dict[str, Json], key: str, within: str | None = None) -> int | None:
    holder = counts.get(within) if within else counts
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, int) and value >= 0 else None


def _has_content(event: bytes) -> bool:
    if any(mark in event for mark in _FINISH_MARKS):
        return False
    greets = any(mark in event for mark in _GREETING_MARKS)
    return not greets or any(mark in event for mark in _OTHER_CONTENT)


def _object(event: bytes) -> dict[str, Json]:
    try:
        parsed = cast("Json", json.loads(event))
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
