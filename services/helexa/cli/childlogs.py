# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What child processes say: all of it in files, and what matters on the terminal."""

import json
import os
import sys
from pathlib import Path
from typing import BinaryIO

LARGEST_FILE_BYTES = 16 * 1024 * 1024
_SHOWN_LEVELS = ("warning", "error", "critical")
_TOLD_ELSEWHERE = ("gateway_is_open",)
_ORIGIN = ("time", "level", "event", "service", "instance", "traceback")


class ChildLogs:
    """One log file a child, the last one kept beside it."""

    def __init__(self, directory: Path, *, verbose: bool) -> None:
        """Write to `NAME.log` in `directory`; `verbose` shows every line as well."""
        self._directory = directory
        self._verbose = verbose
        self._files: dict[str, BinaryIO] = {}

    def take(self, name: str, line: bytes) -> None:
        """Keep one line of the child `name`, and show it if it matters."""
        file = self._file(name)
        file.write(line)
        file.flush()
        text = line.decode(errors="replace").rstrip() if self._verbose else notable(name, line)
        if text is not None:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, name: str) -> BinaryIO:
        file = self._files.get(name)
        path = self._directory / f"{name}.log"
        if file is not None and file.tell() > LARGEST_FILE_BYTES:
            file.close()
            path.replace(path.with_suffix(".log.1"))
            file = None
        if file is None:
            file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
            self._files[name] = file
        return file


def notable(name: str, line: bytes) -> str | None:
    """Return `line` for a person, or `None` if it is not worth interrupting one."""
    text = line.decode(errors="replace").rstrip()
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        # Not one of our log lines: an interpreter or a library that is in trouble.
        return f"{name}: {text}" if text else None
    if record.get("level") not in _SHOWN_LEVELS or record.get("event") in _TOLD_ELSEWHERE:
        return None
    details = "".join(f" {key}={value}" for key, value in record.items() if key not in _ORIGIN)
    return f"{name}: {record['level']}: {record.get('event', '')}{details}"
