# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What child processes say: all of it in files, and what matters on the terminal."""

import contextlib
import json
import os
import re
import sys
from io import FileIO
from pathlib import Path

LARGEST_FILE_BYTES = 16 * 1024 * 1024
_SHOWN_LEVELS = ("warning", "error", "critical")
_TOLD_ELSEWHERE = ("gateway_is_open",)
_NOT_QUIET = re.compile(rb"""^(?!\{"time":"[^"]*","level":"(?:debug|info)",).+$""", re.MULTILINE)
"""Lines that may matter: all but ours of these levels, told by how they begin."""
_ORIGIN = ("time", "level", "event", "service", "instance", "traceback")


class ChildLogs:
    """One log file a child, the last one kept beside it."""

    def __init__(self, directory: Path, *, verbose: bool) -> None:
        """Write to `NAME.log` in `directory`; `verbose` shows every line as well."""
        self._directory = directory
        self._verbose = verbose
        self._files: dict[str, FileIO] = {}

    def take(self, name: str, lines: bytes) -> None:
        """Keep whole lines of the child `name`, and show those that matter."""
        # A full disk costs lines, and not the child that waits for somebody to read them.
        with contextlib.suppress(OSError):
            self._file(name).write(lines)
        if self._verbose:
            _show(lines.decode(errors="replace"))
            return
        said = (notable(name, found[0]) for found in _NOT_QUIET.finditer(lines))
        _show("".join(f"{text}\n" for text in said if text is not None))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, name: str) -> FileIO:
        """Return the file of `name`; what is written to it is there at once."""
        file = self._files.get(name)
        path = self._directory / f"{name}.log"
        if file is not None and file.tell() > LARGEST_FILE_BYTES:
            file.close()
            path.replace(path.with_suffix(".log.1"))
            file = None
        if file is None:
            file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", 0)
            self._files[name] = file
        return file


def _show(text: str) -> None:
    if text:
        sys.stderr.write(text)
        sys.stderr.flush()


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
