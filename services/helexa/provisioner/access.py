# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a provisioner process needs of its machine: keys, the servers' files, an orderly end."""

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack

from helexa.bus.client import Bus
from helexa.bus.lease import Lease
from helexa.process.lifecycle import Life
from helexa.provisioner.enrolment import Enrolment
from helexa.provisioner.service import Provisioner
from helexa.provisioner.settings import ProvisionerSettings
from helexa.provisioner.standing import StandingToken
from helexa.site.connect import data_dir_of, servers_of
from helexa.site.files import create_secret, read_secret
from helexa.site.keys import Identity, random_key
from helexa.site.reload import system_connection

_log = logging.getLogger(__name__)


def api_key(settings: ProvisionerSettings) -> str:
    """Return the key of the API, after making one at the first start.

    Raises:
        KeyFileError: the file is readable by others.
    """
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = data_dir_of(settings).orchestrator_key
    if create_secret(path, random_key() + "\n"):
        _log.info("api_key_made", extra={"file": str(path)})
    return read_secret(path)


async def open_enrolment(
    resources: AsyncExitStack, settings: ProvisionerSettings, provisioner: Provisioner
) -> Enrolment | None:
    """Return who may join, if this machine has the servers' files and the key to reload them.

    Raises:
        KeyFileError: that key cannot be used.
    """
    place = data_dir_of(settings)
    users_file = settings.users_file or place.neurons_conf
    if not users_file.exists() or not place.system_key.exists():
        _log.info("enrolment_off", extra={"file": str(users_file)})
        return None
    servers = servers_of(settings)
    system = Bus(system_connection(servers, Identity.load(place.system_key).seed))
    await resources.enter_async_context(system)
    return Enrolment(
        system,
        provisioner.identities,
        provisioner.announcer,
        users_file=users_file,
        server_count=settings.server_count,
        join_urls=settings.join_urls or servers,
    )


def keep_join_token(life: Life, settings: ProvisionerSettings, provisioner: Provisioner) -> None:
    """Keep a join token in the file that the settings name, if this process lets neurons in."""
    if settings.join_token_file is None or provisioner.enrolment is None:
        return
    standing = StandingToken(
        provisioner.enrolment, provisioner.lease, settings.join_token_file, settings.join_token_s
    )
    life.run("join-token", standing.run())


def hold_lease(life: Life, lease: Lease) -> None:
    """Claim the lease, and give it back while the connection still stands.

    Background tasks end after the connection; the next leader should not wait for an expiry.
    """
    leave, given_back = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        claiming = asyncio.create_task(lease.run(), name="lease-claim")
        leaving = asyncio.create_task(leave.wait(), name="lease-leave")
        try:
            await asyncio.wait({claiming, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            claiming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await claiming
            given_back.set()

    async def give_back() -> None:
        leave.set()
        await given_back.wait()

    life.run("lease", hold())
    life.resources.push_async_callback(give_back)
