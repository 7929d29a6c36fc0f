# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Logs: one JSON object a line on stderr; the message is a constant event name.

A running loop writes what it has said every `WRITE_WITHIN_S`, many lines at once; a warning, and
whatever is said outside of a loop or while the process ends, is written at once, with all before
it. So only a process that is killed outright loses lines: those of its last moment.
"""

import asyncio
import contextlib
import json
import logging
import os
import select
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType

import msgspec.json
from typing_extensions import override

from helexa.bus.context import REQUEST_ID

WRITE_WITHIN_S = 0.05
MOST_LINES = 256
"""Written at once when so many wait."""
_STDERR = 2
_encode = msgspec.json.Encoder(enc_hook=str).encode
_ExcInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | None
)


class _Record(logging.LogRecord):
    """A record with what a line needs.

    The standard one looks at the process, the thread, the task and the calling file each time,
    which costs more than all the rest of a line.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - as the standard library calls it
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: tuple[object, ...] | Mapping[str, object] | None,
        exc_info: _ExcInfo,
        func: str | None = None,
        sinfo: str | None = None,
    ) -> None:
        if args or level >= logging.WARNING:
            super().__init__(name, level, pathname, lineno, msg, args, exc_info, func, sinfo)
            return
        self.name = name
        self.msg = msg
        self.args = None
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.created = time.time()
        self.exc_info = exc_info
        self.stack_info = sinfo


_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    "message",
    "asctime",
    "taskName",
}


class JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON, with the request being worked on."""

    def __init__(self, service: str, instance: str) -> None:
        """Name the process that every line comes from."""
        super().__init__()
        self.service = service
        self.instance = instance
        self._second = 0
        self._time = b""

    @property
    def instance(self) -> str:
        """The name of the process."""
        return self._instance

    @instance.setter
    def instance(self, name: str) -> None:
        self._instance = name
        origin = _encode({"service": self.service, "instance": name})
        self._origin = b"," + origin[1:-1]

    @override
    def format(self, record: logging.LogRecord) -> str:
        return self.line(record).decode()

    def line(self, record: logging.LogRecord) -> bytes:
        """Return the line for `record`, without a line end.

        It begins with the time and the level, each at its own place, so that a reader can tell
        what a line is worth without decoding it.
        """
        facts = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            facts["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        level = record.levelname.lower().encode()
        return self.render(record.created, level, _encoded(record.getMessage()), facts)

    def render(self, at_s: float, level: bytes, event: bytes, facts: dict[str, object]) -> bytes:
        """Return the line for `event`, which is encoded already, at the Unix time `at_s`."""
        request = REQUEST_ID.get()
        if request:
            facts = {"request_id": request, **facts}
        return b"".join(
            (
                b'{"time":"',
                self._time_of(at_s),
                b'","level":"',
                level,
                b'","event":',
                event,
                self._origin,
                b"," + _encoded(facts)[1:] if facts else b"}",
            )
        )

    def _time_of(self, at_s: float) -> bytes:
        second = int(at_s)
        if second != self._second:
            self._second = second
            self._time = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        return b"%b.%03d+00:00" % (self._time, (at_s - second) * 1000)


def _encoded(value: object) -> bytes:
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # A value that JSON has no word for must not cost the line.
        return json.dumps(value, default=str, skipkeys=True).encode()


class LineHandler(logging.Handler):
    """Writes lines to stderr, many at once."""

    def __init__(self, formatter: JsonFormatter) -> None:
        """Write what `formatter` makes of the records."""
        super().__init__()
        self.formatter: JsonFormatter = formatter
        self.is_prompt = False
        """Whether each line is written at once."""
        self._lines: list[bytes] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.take(self.formatter.line(record), at_once=record.levelno >= logging.WARNING)

    def take(self, line: bytes, *, at_once: bool = False) -> None:
        """Write `line` soon, or at once with all before it."""
        with self.lock or contextlib.nullcontext():
            lines = self._lines
            lines.append(line)
            if at_once or self.is_prompt or len(lines) >= MOST_LINES:
                self.flush()
            elif len(lines) == 1:
                self._write_soon()

    @override
    def flush(self) -> None:
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                lines.append(b"")
                _write(b"\n".join(lines))

    def _write_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            loop.call_later(WRITE_WITHIN_S, self.flush)


class FrequentEvent:
    """One event, told at the level INFO, that a process tells thousands of times a second.

    Its line is the one that `logging` would make, without the record, whose making costs several
    times as much. Where there are other handlers, they get the record.
    """

    def __init__(self, log: logging.Logger, name: str) -> None:
        """Tell `name` where `log` is heard."""
        self._log = log
        self._name = name
        self._encoded = _encoded(name)

    def tell(self, facts: dict[str, object]) -> None:
        """Log the event with these facts."""
        if not self._log.isEnabledFor(logging.INFO):
            return
        handlers = logging.root.handlers
        if len(handlers) == 1 and isinstance(handlers[0], LineHandler):
            only = handlers[0]
            only.take(only.formatter.render(time.time(), b"info", self._encoded, facts))
        else:
            self._log.info(self._name, extra=facts)


def configure_logs(service: str, instance: str, level: str = "info") -> None:
    """Send every log of this process to stderr as JSON lines."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # No line tells where in the code it comes from: its event does. (The standard library's own
    # advice for speed.)
    logging._srcfile = None  # noqa: SLF001
    logging.setLogRecordFactory(_Record)
    root = logging.getLogger()
    root.handlers[:] = [LineHandler(JsonFormatter(service, instance))]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def name_instance(instance: str) -> None:
    """Log under the name that this process goes by in metrics and on the bus."""
    for handler in _handlers():
        handler.formatter.instance = instance


def write_logs_at_once() -> None:
    """Write what has been said, and from now on each line when it is said: the end is near."""
    for handler in _handlers():
        handler.is_prompt = True
        handler.flush()


def _handlers() -> list[LineHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, LineHandler)]


def _write(data: bytes) -> None:
    rest = memoryview(data)
    # Nobody may be there to read it any more: then there is nobody to tell either.
    with contextlib.suppress(OSError):
        while rest:
            try:
                rest = rest[os.write(_STDERR, rest) :]
            except BlockingIOError:
                select.select((), (_STDERR,), ())
