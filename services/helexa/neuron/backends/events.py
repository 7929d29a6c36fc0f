# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Server-sent events as inference servers write them: bytes in, the data of whole events out."""

import re

from helexa.protocol.errors import BackendError

END_MARK = b"[DONE]"
_MAX_EVENT_BYTES = 16 << 20
_FIELD, _EMPTY_LINE = b"data: ", b"\n\n"
_FIELD_BYTES, _EMPTY_LINE_BYTES = len(_FIELD), len(_EMPTY_LINE)
_BETWEEN = _EMPTY_LINE + _FIELD
_ONE_EVENT = re.compile(rb"data: (.++)\n\n")


class EventSplitter:
    """Cuts a byte stream into the data of its events; the cut may lie anywhere.

    Comments and all fields but `data` are dropped, except `error`: builds of llama.cpp before
    2025 wrote a failure as such a field, which comes out as `{"error": …}`.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """

    def __init__(self) -> None:
        self._rest = b""
        self.is_done = False
        """Whether the end mark has come; nothing after it is read."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that `data` completes.

        Raises:
            BackendError: an event is longer than 16 MiB.
        """
        # Nearly all reads are whole events of one line each, and of those nearly all are one.
        if self._rest or self.is_done or b"\r" in data:
            return self._feed(data)
        one = _ONE_EVENT.fullmatch(data)
        if one is not None and one[1] != END_MARK:
            return [one[1]]
        events = data[_FIELD_BYTES:-_EMPTY_LINE_BYTES].split(_BETWEEN)
        is_plain = data.startswith(_FIELD) and data.endswith(_EMPTY_LINE)
        if not is_plain or data.count(b"\n") != 2 * len(events) or b"" in events:
            return self._feed(data)
        if END_MARK in events:
            self.is_done = True
            del events[events.index(END_MARK) :]
        return events

    def _feed(self, data: bytes) -> list[bytes]:
        text = self._rest + data
        held = b""
        if b"\r" in text:
            # Half a line end at the end of a read: the other half decides.
            if text.endswith(b"\r"):
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = text.split(b"\n\n")
        self._rest = rest + held
        if len(self._rest) > _MAX_EVENT_BYTES:
            raise BackendError("the backend sent an event that is too long")
        return self._take(blocks)

    def finish(self) -> list[bytes]:
        """Return what the end of the stream completes: a last event without its empty line."""
        rest, self._rest = self._rest, b""
        return self._take([rest.rstrip(b"\r\n")])

    def _take(self, blocks: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for block in blocks:
            data = _data(block)
            if self.is_done or not data:
                continue
            if data == END_MARK:
                self.is_done = True
            else:
                events.append(data)
        return events


def _data(block: bytes) -> bytes:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    parts: list[bytes] = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            parts.append(value)
        elif name == b"error":
            parts.append(b'{"error": ' + value + b"}")
    return b"\n".join(parts)
