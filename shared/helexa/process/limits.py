# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the system lets a process have."""

import resource

ENOUGH_FILES = 65_536


def allow_open_files() -> int:
    """Take as many open files as the system lets this process have, and return how many.

    Each client and each answer of a runtime is one, and many systems begin with 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
