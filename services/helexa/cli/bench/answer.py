# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One answer while it comes: when its first token came, the time between tokens, its end.

Does no I/O and reads no clock. Events are searched, not parsed: at tens of thousands a second the
generator would measure itself.
"""

import re

from helexa.cli.bench import trouble
from helexa.cli.bench.histogram import Histogram
from helexa.cli.bench.trouble import Trouble

_CONTENT = b'"content":"'
_AFTER_CONTENT = len(_CONTENT)
_QUOTE = ord('"')
_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|text|refusal|arguments)"\s*:\s*"[^"]')
"""A part of an answer that is not empty. Inside a string of JSON the quotes would be escaped."""
_COMPLETION = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)')
_MOST_OF_AN_ERROR = 64 * 1024


class Answer:
    """What a client notices of one answer.

    Args:
        began_s: When the request was sent, or was due.
        streamed: Whether it was asked for as a stream.
        gaps: Takes in the time between two tokens.
    """

    __slots__ = (
        "_gaps",
        "_is_done",
        "_parts",
        "_rest",
        "_usage",
        "began_s",
        "ended_s",
        "events",
        "first_s",
        "last_s",
        "status",
        "streamed",
        "trouble",
    )

    def __init__(self, began_s: float, *, streamed: bool, gaps: Histogram) -> None:
        self.began_s = began_s
        self.streamed = streamed
        self.status = 0
        self.first_s: float | None = None
        """When the first token came."""
        self.last_s = 0.0
        self.ended_s: float | None = None
        self.events = 0
        """Events with a part of the answer."""
        self.trouble: Trouble | None = None
        self._gaps = gaps
        self._rest = b""
        self._parts: list[bytes] = []
        self._usage = b""
        self._is_done = False

    def head(self, status: int) -> None:
        """Take the status."""
        self.status = status

    def feed(self, data: bytes, now_s: float) -> None:
        """Take a part of the body."""
        if self.status != 200 or not self.streamed:
            self._parts.append(data)
            return
        data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        self._take(events, now_s)

    def end(self, now_s: float) -> None:
        """Take the end of the body."""
        self.ended_s = now_s
        if self.status != 200:
            self.trouble = trouble.of_status(self.status, self.body[:_MOST_OF_AN_ERROR])
        elif self.streamed:
            # The last event may come without the empty line that ends it.
            self._take([self._rest], now_s)
            self.trouble = self.trouble or (None if self._is_done else trouble.CUT)
        else:
            self._usage = self.body
            self.trouble = None if b'"choices"' in self._usage else trouble.NOT_AN_ANSWER

    def fail(self, reason: Trouble, now_s: float) -> None:
        """Take that no more will come."""
        self.ended_s = now_s
        self.trouble = self.trouble or reason

    def forget(self) -> None:
        """Begin again: the request never arrived."""
        self.ended_s = self.trouble = None

    @property
    def body(self) -> bytes:
        """The body of what is not a stream."""
        return b"".join(self._parts)

    @property
    def completion_tokens(self) -> int | None:
        """How long the answer is, where the endpoint says so."""
        return _last_number(_COMPLETION, self._usage)

    @property
    def prompt_tokens(self) -> int | None:
        """How long the prompt is, where the endpoint says so."""
        return _last_number(_PROMPT, self._usage)

    def _take(self, events: list[bytes], now_s: float) -> None:
        tokens = 0
        for event in events:
            at = event.find(_CONTENT)
            filled = at >= 0 and event[at + _AFTER_CONTENT : at + _AFTER_CONTENT + 1] != b'"'
            if filled or _TEXT.search(event):
                tokens += 1
            else:
                self._take_other(event)
            if b'"completion_tokens"' in event:
                self._usage = event
        if tokens:
            self._time(tokens, now_s)

    def _time(self, tokens: int, now_s: float) -> None:
        if self.first_s is None:
            self.first_s = now_s
        else:
            self._gaps.add(now_s - self.last_s)
        if tokens > 1:
            self._gaps.add(0.0, tokens - 1)
        self.last_s = now_s
        self.events += tokens

    def _take_other(self, event: bytes) -> None:
        for line in event.split(b"\n"):
            name, _, value = line.partition(b":")
            data = value.strip()
            if name == b"data" and data == b"[DONE]":
                self._is_done = True
            elif name == b"data" and b'"error"' in data:
                found = trouble.of_event(data, has_begun=self.first_s is not None)
                self.trouble = self.trouble or found


def _last_number(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None
