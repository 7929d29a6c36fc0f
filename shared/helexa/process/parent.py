# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Child processes that do not outlive the process that started them."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> Callable[[], None]:
    """Return what a new process calls before its program: SIGTERM when the process `parent` ends.

    The kernel watches the thread that starts the process, so it must be one that lives on.
    """

    def arrange() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # A parent that died before that line would never be noticed.
        if os.getppid() != parent:
            os._exit(1)

    return arrange
