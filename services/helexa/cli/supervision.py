# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Ties the supervisor of child processes to the life of this one."""

import sys
from collections.abc import Sequence

from helexa.process.childlines import OnLines
from helexa.process.lifecycle import EXIT_FAILED, Life
from helexa.process.supervisor import Child, Supervisor

STOP_BEYOND_GRACE_S = 4.0
"""What the stages may take together beyond the time that each has for its accepted work."""


async def supervise(
    life: Life, children: Sequence[Child], *, on_lines: OnLines, grace_s: float
) -> None:
    """Run `children` until the end of `life`; one that does not stay up ends it.

    Raises:
        ChildFailedError: one does not come up.
    """
    supervisor = Supervisor(
        children, on_lines=on_lines, stop_within_s=grace_s + STOP_BEYOND_GRACE_S
    )
    await life.resources.enter_async_context(supervisor)

    async def watch() -> None:
        error = await supervisor.failed()
        sys.stderr.write(f"helexa: {error.message}\n")
        life.stop.ask(error.code, exit_code=EXIT_FAILED)

    life.run("supervisor", watch())
