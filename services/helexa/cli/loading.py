# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Showing how a model is loaded, until it is."""

import sys
import time
from collections.abc import Callable

from helexa.cli.api import AnswerError, Api, segment
from helexa.cli.views import LoadStatus
from helexa.protocol.messages.models import ModelState

FIRST_LOOK_S = 0.1
LONGEST_LOOK_S = 1.0
LOOK_GROWTH = 1.3


def show_loading(api: Api, name: str, pause: Callable[[float], None] = time.sleep) -> None:
    """Return when the model is loaded, telling each step.

    Raises:
        AnswerError: it cannot be loaded; the message says why.
        UnavailableError: the orchestrator does not answer.
    """
    path = f"/api/models/{segment(name)}/load-status"
    told, look_s = "", FIRST_LOOK_S
    while True:
        status = api.read(path, LoadStatus)
        line = _describe(status)
        if line != told:
            told = line
            _tell(name, line)
        if status.state == ModelState.LOADED:
            _finish()
            return
        if status.state == ModelState.FAILED:
            _finish()
            reasons = dict.fromkeys(each.error for each in status.replicas if each.error)
            raise AnswerError(f"{name} cannot be loaded: {'; '.join(reasons) or 'see the logs'}")
        pause(look_s)
        look_s = min(look_s * LOOK_GROWTH, LONGEST_LOOK_S)


def _describe(status: LoadStatus) -> str:
    if status.state == ModelState.LOADING and status.progress is not None:
        return f"{status.state} {status.progress:.0%}"
    return status.state


def _tell(name: str, line: str) -> None:
    # On a terminal one line is written over and over; a file gets a line a step.
    text = f"\r\x1b[K{name}: {line}" if sys.stdout.isatty() else f"{name}: {line}\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def _finish() -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\n")
