# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Finds the nats-server program."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from helexa.site.errors import ServerBinaryError

PROGRAM = "nats-server"
MINIMUM = (2, 15, 0)
ADVICE = "run: pip install 'helexa[embedded]'"

_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_ASK_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A nats-server that is new enough."""

    path: Path
    version: tuple[int, int, int]


def find_server(
    explicit: Path | None = None,
    *,
    search_path: str | None = None,
    packaged: Path | None = None,
) -> ServerBinary:
    """Return the server to run: `explicit`, else the one on PATH, else the one in our environment.

    Args:
        explicit: What the operator names; nothing else is then tried.
        search_path: Replaces PATH.
        packaged: Replaces the place where `helexa[embedded]` installs it, beside the interpreter.

    Raises:
        ServerBinaryError: there is none, or none that is new enough.
    """
    if explicit is not None:
        return _check(explicit)
    on_path = shutil.which(PROGRAM, path=search_path)
    beside = packaged or Path(sys.executable).parent / PROGRAM
    candidates = [Path(found) for found in (on_path, shutil.which(beside)) if found]
    refusal = ServerBinaryError(f"There is no {PROGRAM} on this machine; {ADVICE}.")
    for candidate in candidates:
        try:
            return _check(candidate)
        except ServerBinaryError as error:
            refusal = error
    raise refusal


def _check(path: Path) -> ServerBinary:
    try:
        answer = subprocess.run(  # noqa: S603 - the operator's own program
            [path, "--version"], capture_output=True, text=True, timeout=_ASK_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerBinaryError(f"{path} cannot be run ({error}); {ADVICE}.") from error
    found = _VERSION.search(answer.stdout)
    if found is None:
        raise ServerBinaryError(f"{path} does not tell its version; {ADVICE}.")
    version = (int(found[1]), int(found[2]), int(found[3]))
    if version < MINIMUM:
        raise ServerBinaryError(
            f"{path} is version {_dotted(version)}, and Helexa needs {_dotted(MINIMUM)} or newer; "
            f"{ADVICE}."
        )
    return ServerBinary(path, version)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
