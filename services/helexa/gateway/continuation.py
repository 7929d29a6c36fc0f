# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether another neuron can go on with an answer that broke off, and from where."""

import json
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from helexa.gateway.assemble import events_of
from helexa.gateway.fields import Fields
from helexa.gateway.order import Order
from helexa.protocol.errors import DeadlineExceededError, HelexaError
from helexa.protocol.messages.execution import Operation

FOLD_ABOVE_BYTES = 32 * 1024
"""Events of a running answer are kept as they came up to here; then only their text is."""
MAX_TEXT_BYTES = 256 * 1024
"""A longer answer is not continued: its text must travel with the request."""
_SILENT = ("role", "refusal")
"""Fields of a delta that say nothing about the text."""
_CONSTRAINTS = (
    "grammar", "json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "structured_outputs", "logprobs", "top_logprobs", "echo", "suffix", "min_tokens",
)  # fmt: skip
"""Fields that tie a text to its beginning, which a runtime does not see as its own any more."""


class Step(Enum):
    """What follows a failed attempt."""

    FAIL = auto()
    START_OVER = auto()
    """Nobody has seen anything of it: another neuron begins anew."""
    GO_ON = auto()
    """Another neuron goes on where it broke off."""
    COMPLETE = auto()
    """Only its end is missing."""


@dataclass(frozen=True, slots=True)
class Partial:
    """An answer so far."""

    text: str = ""
    tokens: int = 0
    """Events with text, which are tokens, or a few more where a runtime groups them."""
    created: int | None = None
    """Unix time in seconds, of its last event."""
    finish: str | None = None
    """Why it ended, once that was said."""
    is_plain: bool = True
    """Whether it is text and nothing else."""


@dataclass(frozen=True, slots=True)
class Onward:
    """How the next attempt begins."""

    anew: bool = False
    """Void what came before, which nobody has seen."""
    partial: Partial | None = None
    """Go on from there."""


FROM_THE_START = Onward()


def with_events(partial: Partial, text: bytes) -> Partial:
    """Return the answer after the events in a piece of its stream."""
    texts = [partial.text]
    tokens, created = partial.tokens, partial.created
    finish, is_plain = partial.finish, partial.is_plain
    for event in events_of(text):
        chunk = _object(event)
        if isinstance(chunk.get("created"), int):
            created = _integer(chunk["created"])
        for choice in _choices(chunk):
            said = _text_of(choice)
            is_plain &= said is not None and not choice.get("logprobs")
            texts.append(said or "")
            tokens += bool(said)
            finish = _string(choice.get("finish_reason")) or finish
    return Partial("".join(texts), tokens, created, finish, is_plain)


def is_continuable(order: Order) -> bool:
    """Whether an answer to `order` could be given by two neurons, one after the other."""
    if not order.stream or order.choices != 1:
        return False
    fields = order.fields
    if any(fields.get(each) for each in _CONSTRAINTS):
        return False
    if order.operation == Operation.COMPLETION:
        return fields.get("best_of") in (None, 1)
    if order.operation != Operation.CHAT:
        return False
    shape = fields.get("response_format")
    is_free = not isinstance(shape, dict) or shape.get("type") == "text"
    is_forced = fields.get("tool_choice") not in (None, "auto", "none")
    return is_free and not is_forced and _ends_well(fields.get("messages"))


def next_step(
    error: HelexaError, partial: Partial, *, can_start_over: bool, is_continuable: bool
) -> Step:
    """Return what helps after `error` broke off an attempt."""
    if not error.to_reply().retryable:
        return Step.FAIL
    if can_start_over:
        return Step.START_OVER
    if partial.finish is not None:
        return Step.COMPLETE
    # A model that was silent for as long as a client may have to wait has used up its patience.
    is_hopeless = isinstance(error, DeadlineExceededError)
    if is_hopeless or not is_continuable or not _can_travel(partial):
        return Step.FAIL
    return Step.GO_ON


@dataclass(slots=True)
class Transcript:
    """What has been seen of a running answer.

    Short answers are never parsed: their events wait here in vain.
    """

    _partial: Partial = field(default_factory=Partial)
    _kept: list[bytes] = field(default_factory=list)
    _kept_bytes: int = 0

    def add(self, text: bytes) -> None:
        """Take in a piece of the stream."""
        self._kept.append(text)
        self._kept_bytes += len(text)
        if self._kept_bytes > FOLD_ABOVE_BYTES:
            self.read()

    def read(self) -> Partial:
        """Return the answer so far."""
        made = with_events(self._partial, b"".join(self._kept))
        self._kept.clear()
        self._kept_bytes = 0
        if not made.is_plain or len(made.text) > MAX_TEXT_BYTES:
            made = replace(made, text="", is_plain=False)
        self._partial = made
        return made


def _can_travel(partial: Partial) -> bool:
    try:
        return partial.is_plain and len(partial.text.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        # Half a character, which some runtimes let out.
        return False


def _ends_well(messages: object) -> bool:
    """Whether what the answer goes on from is no half-made message with parts or tool calls."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return True
    return isinstance(last.get("content"), str) and not last.get("tool_calls")


def _text_of(choice: Fields) -> str | None:
    """Return the text that a choice adds, `None` where it adds something else."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return _string(choice.get("text")) or ""
    others = {name for name, value in delta.items() if value and name not in _SILENT}
    if others - {"content"}:
        return None
    return _string(delta.get("content")) or ""


def _choices(chunk: Fields) -> list[Fields]:
    choices = chunk.get("choices")
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []


def _object(event: bytes) -> Fields:
    try:
        parsed = json.loads(event)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None
