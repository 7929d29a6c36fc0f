# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Several gateway processes behind one port, for a machine whose cores one cannot use up."""

import contextlib
import logging
import sys
from collections.abc import Mapping

from helexa.cli.flags import flag_words
from helexa.cli.ports import local_url, require_free
from helexa.cli.probe import ALIVE, until_ready
from helexa.cli.supervision import supervise
from helexa.gateway.settings import GatewaySettings
from helexa.process.http import reserve
from helexa.process.lifecycle import BEYOND_GRACE_S, Life, run_process
from helexa.process.logs import configure_logs
from helexa.process.settings import SocketAddress, load_settings
from helexa.process.supervisor import Child, pass_on
from helexa.protocol.naming import instance_id

_log = logging.getLogger(__name__)


def run_workers(flags: Mapping[str, object], count: int) -> int:
    """Run `count` gateways with these settings until a signal, and return the exit code.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = load_settings(GatewaySettings, flags).values
    configure_logs("gateway", instance_id(), settings.log_level)

    async def main(life: Life) -> None:
        await _start(life, settings, flags, count)

    return run_process(main, stop_within_s=settings.grace_s + BEYOND_GRACE_S)


async def _start(
    life: Life, settings: GatewaySettings, flags: Mapping[str, object], count: int
) -> None:
    asked = SocketAddress.parse(settings.socket)
    # Who shares a port would share it with a server that somebody has forgotten here, too.
    require_free(asked, "--socket")
    # It never listens: it keeps the port while no worker has it, and settles which one 0 is.
    reserved = life.resources.enter_context(contextlib.closing(reserve(asked, share=True)))
    address = SocketAddress(host=asked.host, port=int(reserved.getsockname()[1]))
    words = flag_words({**flags, "socket": address, "share_port": True})
    children = [
        Child(
            name=f"gateway-{number}",
            # -P: a folder called helexa where the command is given must not replace the package.
            argv=(sys.executable, "-P", "-m", "helexa.cli", "gateway", *words),
            ready=until_ready(local_url(address), ALIVE),
        )
        for number in range(1, count + 1)
    ]
    await supervise(life, children, on_lines=pass_on, grace_s=settings.grace_s)
    _log.info("workers_serve", extra={"workers": count, "address": str(address)})
