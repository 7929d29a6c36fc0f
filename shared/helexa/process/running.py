# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Running one service in this process."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from helexa.process.lifecycle import BEYOND_GRACE_S, EXIT_USAGE, Life, run_process
from helexa.process.logs import configure_logs
from helexa.process.settings import ServiceSettings, SettingsError, load_settings
from helexa.protocol.naming import instance_id

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def run_service(
    kind: type[SettingsT],
    start: Callable[[Life, SettingsT], Awaitable[object]],
    flags: Mapping[str, object] | None = None,
) -> int:
    """Run a service with its settings until it is asked to stop, and return its exit code.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = load_settings(kind, flags).values
    configure_logs(kind.section, instance_id(), settings.log_level)

    async def main(life: Life) -> None:
        await start(life, settings)

    return run_process(main, stop_within_s=settings.grace_s + BEYOND_GRACE_S)


def service_main(
    kind: type[SettingsT], start: Callable[[Life, SettingsT], Awaitable[object]]
) -> int:
    """Run a service as its own program: `run_service`, with a wrong setting told in one line."""
    try:
        return run_service(kind, start)
    except SettingsError as error:
        sys.stderr.write(f"helexa: {error}\n")
        return EXIT_USAGE
