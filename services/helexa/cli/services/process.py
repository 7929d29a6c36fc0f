# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Running one service in this process."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from helexa.process.lifecycle import Life, run_process
from helexa.process.logs import configure_logs
from helexa.process.settings import ServiceSettings, load_settings
from helexa.protocol.naming import instance_id

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def run_service(
    kind: type[SettingsT],
    start: Callable[[Life, SettingsT], Awaitable[object]],
    flags: Mapping[str, object],
) -> int:
    """Run a service with its settings until it is asked to stop, and return its exit code.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = load_settings(kind, flags).values
    configure_logs(kind.section, instance_id(), settings.log_level)

    async def main(life: Life) -> None:
        await start(life, settings)

    return run_process(main)
