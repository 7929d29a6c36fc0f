# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Logs: one JSON object a line on stderr; the message is a constant event name."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

from typing_extensions import override

from helexa.bus.context import REQUEST_ID

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

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "service": self.service,
            "instance": self.instance,
        }
        if request := REQUEST_ID.get():
            line["request_id"] = request
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logs(service: str, instance: str, level: str = "info") -> None:
    """Send every log of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service, instance))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def name_instance(instance: str) -> None:
    """Log under the name that this process goes by in metrics and on the bus."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.instance = instance
