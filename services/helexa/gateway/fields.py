# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Types of a request's fields: each wrong one is refused by name before any work is done."""

import json
from typing import Never

import msgspec

from helexa.protocol.errors import BadRequestError, UnsupportedError

Fields = dict[str, object]

NUMBER, INTEGER, BOOLEAN, STRING, OBJECT, ARRAY = (
    "number", "integer", "boolean", "string", "object", "array",
)  # fmt: skip

SAMPLING = {
    "temperature": (NUMBER,),
    "top_p": (NUMBER,),
    "top_k": (INTEGER,),
    "min_p": (NUMBER,),
    "presence_penalty": (NUMBER,),
    "frequency_penalty": (NUMBER,),
    "n": (INTEGER,),
    "seed": (INTEGER,),
    "stop": (STRING, ARRAY),
    "logit_bias": (OBJECT,),
    "max_tokens": (INTEGER,),
    "max_completion_tokens": (INTEGER,),
    "max_output_tokens": (INTEGER,),
    "stream": (BOOLEAN,),
    "stream_options": (OBJECT,),
    "response_format": (OBJECT,),
}
EVERY = {
    "model": (STRING,),
    "user": (STRING,),
    "prompt_cache_key": (STRING,),
    "service_tier": (STRING,),
    "helexa": (OBJECT,),
}
CHAT = (
    EVERY
    | SAMPLING
    | {
        "messages": (ARRAY,),
        "logprobs": (BOOLEAN,),
        "top_logprobs": (INTEGER,),
        "tools": (ARRAY,),
        "tool_choice": (STRING, OBJECT),
        "parallel_tool_calls": (BOOLEAN,),
    }
)
COMPLETION = (
    EVERY
    | SAMPLING
    | {
        "prompt": (STRING, ARRAY),
        "logprobs": (INTEGER,),
        "echo": (BOOLEAN,),
        "best_of": (INTEGER,),
        "suffix": (STRING,),
    }
)
EMBEDDING = EVERY | {
    "input": (STRING, ARRAY),
    "encoding_format": (STRING,),
    "dimensions": (INTEGER,),
}
CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""The names that the token cap has; runtimes know the first."""
MAX_CHOICES = 128


def parse(data: bytes, types: dict[str, tuple[str, ...]]) -> Fields:
    """Return the JSON object in `data`, without its null fields.

    Raises:
        BadRequestError: it is something else, or a field is of another type than `types` has for
            it; then `param` names the field.
    """
    try:
        value = decode(data)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"The body is not JSON: {_place(error)}") from error
    if not isinstance(value, dict):
        raise BadRequestError("The body must be a JSON object.")
    made: Fields = {}
    for name, held in value.items():
        if held is None:
            continue
        if name in types and type(held) not in _TAKEN[types[name]]:
            wrong_type(name, " or ".join(types[name]), held)
        made[name] = held
    return made


def decode(data: bytes) -> object:
    """Return what JSON holds.

    Raises:
        ValueError: it is not JSON; the message says where.
        RecursionError: it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        # It takes less than Python's does, such as half of a surrogate pair, and says less.
        return json.loads(data, parse_constant=_refuse_constant)


def encode(value: object) -> bytes:
    """Return `value` as JSON."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Half of a surrogate pair has no UTF-8, but an escape.
        return json.dumps(value, separators=(",", ":")).encode()


def wrong_type(name: str, wanted: str, value: object) -> Never:
    """Say which field has a wrong type.

    Raises:
        BadRequestError: always.
    """
    raise BadRequestError(f"{name!r} must be of type {wanted}, not {kind_of(value)}.", param=name)


def bad(name: str, message: str) -> Never:
    """Say what is wrong with a field.

    Raises:
        BadRequestError: always.
    """
    raise BadRequestError(message, param=name)


def unsupported(name: str, message: str) -> Never:
    """Say that a field asks for something that does not exist here.

    Raises:
        UnsupportedError: always.
    """
    raise UnsupportedError(message, param=name)


def text(value: object) -> str | None:
    """Return a string, `None` if `value` is absent or something else."""
    return value if isinstance(value, str) else None


def cap(fields: Fields, default: int | None, *, least: int) -> int | None:
    """Fold the three names of the token cap into `max_tokens` and return it.

    Raises:
        BadRequestError: a cap is too small.
    """
    limit: int | None = None
    for name in [each for each in CAPS if each in fields]:
        value = fields.pop(name)
        if not isinstance(value, int) or value < least:
            bad(name, f"{name!r} must be at least {least}.")
        limit = value if limit is None or value < limit else limit
    if limit is None:
        limit = default
    if limit is not None:
        fields["max_tokens"] = limit
    return limit


def choices(count: object) -> int:
    """Return how many answers are asked for.

    Raises:
        BadRequestError: none, or too many.
    """
    if not isinstance(count, int) or not 1 <= count <= MAX_CHOICES:
        bad("n", f"'n' must be between 1 and {MAX_CHOICES}.")
    return count


def stops(value: object) -> None:
    """Check the stop sequences.

    Raises:
        BadRequestError: one is not text.
    """
    if isinstance(value, list):
        for position, each in enumerate(value):
            if not isinstance(each, str):
                wrong_type(f"stop[{position}]", STRING, each)


def kind_of(value: object) -> str:
    """Return JSON's name for the type of `value`."""
    for kind in (BOOLEAN, INTEGER, NUMBER, STRING, OBJECT, ARRAY):
        if _is(value, kind):
            return kind
    return "null"


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == BOOLEAN
    return isinstance(value, _CLASSES[kind])


def _of_kinds(kinds: tuple[str, ...]) -> set[type]:
    found: set[type] = set()
    for kind in kinds:
        classes = _CLASSES[kind]
        found |= set(classes) if isinstance(classes, tuple) else {classes}
    return found


_CLASSES: dict[str, type | tuple[type, ...]] = {
    NUMBER: (int, float),
    INTEGER: int,
    BOOLEAN: bool,
    STRING: str,
    OBJECT: dict,
    ARRAY: list,
}


_TAKEN = {
    kinds: frozenset(_of_kinds(kinds))
    for types in (CHAT, COMPLETION, EMBEDDING)
    for kinds in types.values()
}
"""Python's types of the values that JSON gives."""


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a JSON number")


def _place(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}."
    if isinstance(error, RecursionError):
        return "it is nested too deeply."
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text."
    return f"{error}."
