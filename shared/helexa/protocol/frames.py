# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Frames: the pieces in which an answer travels and is kept.

A frame is the msgpack array ``[attempt, seq, first_event, kind, payload…]``, published on the token
subject of (home, author, request). `seq` counts a neuron's frames from 0 and runs on over attempts;
`first_event` is the number of the frame's first server-sent event, from 0. Frames of the author
`ctl` come from gateways; their `seq` is 0 and means nothing, but in terminal ones.

| kind | author | payload |
|---|---|---|
| `OPEN` | ctl | `account, model, operation, public_id, neuron, created`; assigns attempt 1 |
| `ASSIGN` | ctl | `neuron, after_seq`: from here on this attempt's frames count, and no older |
| `ATTACH` | ctl | `gateway`: the new owner |
| `DATA` | neuron | `events, text`: that many events, as they go to the client |
| `BODY` | neuron | `part`: a piece of an answer that is not a stream |
| `BEAT` | neuron | `progress`: the backend is at work, or None |
| `DONE` | neuron, ctl | `usage, signed, timings[, part]`: the last piece, as in `BODY` |
| `ERROR` | neuron, ctl | `error, signed, timings`: an `ErrorReply` as a map |

`DONE` and `ERROR` are terminal: exactly one ends an attempt. Those of `ctl` end the answer, before
the frame whose number is their `seq`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

import msgspec

from helexa.protocol.codec import Plain, pack_numbers, pack_plain, unpack_plain
from helexa.protocol.errors import ErrorReply, MalformedError
from helexa.protocol.messages.execution import Timings, TokenUsage


class FrameKind(IntEnum):
    """What a frame holds. Unknown kinds are passed over."""

    OPEN = 0
    ASSIGN = 1
    ATTACH = 2
    DATA = 3
    BODY = 4
    BEAT = 5
    DONE = 6
    ERROR = 7


_DATA = int(FrameKind.DATA)
TERMINAL = (FrameKind.DONE, FrameKind.ERROR)
CONTROL_AUTHOR = "ctl"
"""The author under which gateways publish."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame; see the module's table for the payload of each kind."""

    attempt: int
    seq: int
    first_event: int
    kind: int
    payload: Sequence[Plain]

    @property
    def is_terminal(self) -> bool:
        """Whether this ends its attempt."""
        return self.kind in TERMINAL


@dataclass(frozen=True, slots=True)
class Opening:
    """What an answer is and who asked for it, so that any gateway can serve the rest of it."""

    account: str
    """Digest of the key that asked; empty for an open gateway."""
    model: str
    operation: str
    public_id: str
    neuron: str
    created: int
    """Unix time in seconds."""


def pack_frame(
    attempt: int, seq: int, first_event: int, kind: FrameKind, *payload: object
) -> bytes:
    """Return a frame as it travels."""
    return pack_plain([attempt, seq, first_event, int(kind), *payload])


def pack_data(attempt: int, seq: int, first_event: int, events: int, text: bytes) -> bytes:
    """Return a `DATA` frame: the same as `pack_frame`, for the path of every token."""
    return pack_numbers((attempt, seq, first_event, _DATA, events, text))


def unpack_frame(data: bytes) -> Frame:
    """Return the frame in `data`.

    Raises:
        MalformedError: `data` is not a frame.
    """
    values = unpack_plain(data)
    if not isinstance(values, list) or len(values) < 4:
        raise MalformedError("not a frame")
    attempt, seq, first_event, kind, *payload = values
    if (
        isinstance(attempt, int)
        and isinstance(seq, int)
        and isinstance(first_event, int)
        and isinstance(kind, int)
    ):
        return Frame(attempt, seq, first_event, kind, payload)
    raise MalformedError("a frame begins with four numbers")


def pack_opening(opening: Opening) -> bytes:
    """Return the first frame of an answer, which assigns attempt 1."""
    return pack_frame(
        1,
        0,
        0,
        FrameKind.OPEN,
        opening.account,
        opening.model,
        opening.operation,
        opening.public_id,
        opening.neuron,
        opening.created,
    )


def read_opening(frame: Frame) -> Opening:
    """Return what an `OPEN` frame says.

    Raises:
        MalformedError: the frame is not one.
    """
    if frame.kind != FrameKind.OPEN or len(frame.payload) < 6:
        raise MalformedError("not an opening frame")
    account, model, operation, public_id, neuron, created = frame.payload[:6]
    return Opening(
        account=cast("str", account),
        model=cast("str", model),
        operation=cast("str", operation),
        public_id=cast("str", public_id),
        neuron=cast("str", neuron),
        created=cast("int", created),
    )


def read_done(frame: Frame) -> tuple[TokenUsage, Timings]:
    """Return the counts and durations of a `DONE` frame.

    Raises:
        MalformedError: the frame is not one.
    """
    if frame.kind != FrameKind.DONE or len(frame.payload) < 3:
        raise MalformedError("not a final frame")
    usage, _, timings = frame.payload[:3]
    return TokenUsage.model_validate(usage), Timings.model_validate(timings)


def read_done_usage(frame: Frame) -> TokenUsage:
    """Return the counts of a `DONE` frame.

    Raises:
        MalformedError: the frame is not one.
    """
    if frame.kind != FrameKind.DONE or not frame.payload:
        raise MalformedError("not a final frame")
    return TokenUsage.model_validate(frame.payload[0])


def read_last_part(frame: Frame) -> bytes:
    """Return the piece of an answer that a `DONE` frame brings, empty where it brings none."""
    part = frame.payload[3] if len(frame.payload) > 3 else None
    return part if isinstance(part, bytes) else b""


def read_error(frame: Frame) -> ErrorReply:
    """Return the error of an `ERROR` frame.

    Raises:
        MalformedError: the frame is not one.
    """
    if frame.kind != FrameKind.ERROR or not frame.payload:
        raise MalformedError("not an error frame")
    return ErrorReply.model_validate(frame.payload[0])
