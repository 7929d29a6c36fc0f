# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A streamed answer put together again, for callers that did not ask for a stream.

Here any backend is asked for a stream: with some, closing one is the only thing that stops them.
"""

import json
from typing import cast

from helexa.neuron.splice import Json

_OBJECTS = {"chat.completion.chunk": "chat.completion"}


class Assembly:
    """One answer as it grows."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._answer: dict[str, Json] = {}
        self._choices: dict[int, dict[str, Json]] = {}

    def add(self, event: bytes) -> None:
        """Take in one event's JSON; what is not an object is passed over."""
        chunk = cast("Json", json.loads(event))
        if not isinstance(chunk, dict):
            return
        choices = chunk.pop("choices", None)
        # The last word counts, but a later null does not undo it.
        self._answer |= {key: value for key, value in chunk.items() if value is not None}
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._add_choice(choice)

    def result(self) -> dict[str, Json]:
        """Return the answer as OpenAI's non-streamed JSON."""
        kind = self._answer.get("object")
        named = _OBJECTS.get(kind, kind) if isinstance(kind, str) else kind
        choices: list[Json] = [self._choices[index] for index in sorted(self._choices)]
        return self._answer | {"object": named, "choices": choices}

    def _add_choice(self, choice: dict[str, Json]) -> None:
        index = choice.get("index")
        number = index if isinstance(index, int) else 0
        held = self._choices.setdefault(number, {"index": number, "finish_reason": None})
        delta = choice.pop("delta", None)
        if isinstance(delta, dict):
            message = held.setdefault("message", {"role": "assistant", "content": None})
            if isinstance(message, dict):
                _merge(message, delta)
        _merge(held, {key: value for key, value in choice.items() if key != "index"})


def _merge(held: dict[str, Json], news: dict[str, Json]) -> None:
    """Join texts and lists, and replace everything else."""
    for key, value in news.items():
        before = held.get(key)
        if value is None:
            held.setdefault(key, None)
        elif key == "tool_calls" and isinstance(value, list):
            held[key] = _tool_calls(before if isinstance(before, list) else [], value)
        elif isinstance(value, str) and isinstance(before, str) and key not in ("role", "type"):
            held[key] = before + value
        elif isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            held[key] = before + value
        else:
            held[key] = value


def _tool_calls(held: list[Json], pieces: list[Json]) -> list[Json]:
    calls = list(held)
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        index = piece.pop("index", len(calls))
        known = calls[index] if isinstance(index, int) and index < len(calls) else None
        if isinstance(known, dict):
            _merge(known, piece)
        else:
            calls.append(piece)
    return calls
