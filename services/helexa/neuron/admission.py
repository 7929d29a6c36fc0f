# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Gets the neuron into a site that does not know it, at the start or after the site began anew."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from helexa.bus.client import Bus
from helexa.neuron.joining import LOOK_S, JoinToken, Site, enrol, is_refused
from helexa.protocol.errors import UnauthorizedError
from helexa.site.errors import SiteError
from helexa.site.keys import Identity

_log = logging.getLogger(__name__)

REFUSED_PAUSE_S = 5.0
WATCH_S = 1.0
DO = "give a join token with --join-token; the operator makes one"


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks to be let in, and by whose leave."""

    neuron_id: str
    identity: Identity
    token: JoinToken


async def keep_admitted(
    site: Site, bus: Bus, applicant: Applicant, on_enrolled: Callable[[], None]
) -> None:
    """Enrol whenever the site's servers refuse the neuron, until cancelled.

    Raises:
        IdentityConflictError: the neuron's id belongs to another key.
    """
    while True:
        if is_refused(bus):
            await _apply(site, bus, applicant, on_enrolled)
        # The connection tells nobody that it is refused, so it must be looked at.
        await asyncio.sleep(WATCH_S if bus.is_connected else LOOK_S)


async def _apply(
    site: Site, bus: Bus, applicant: Applicant, on_enrolled: Callable[[], None]
) -> None:
    join = await _join_identity(applicant.token)
    if join is None:
        _log.error(
            "not_enrolled", extra={"site": site.name, "neuron": applicant.neuron_id, "do": DO}
        )
        await asyncio.sleep(WATCH_S if applicant.token.is_named else REFUSED_PAUSE_S)
        return
    try:
        await enrol(site.urls, join, applicant.neuron_id, applicant.identity)
    except UnauthorizedError as error:
        _log.error("not_enrolled", extra={"site": site.name, "error": error.message})
        await asyncio.sleep(REFUSED_PAUSE_S)
        return
    _log.info("enrolled", extra={"site": site.name, "neuron": applicant.neuron_id})
    on_enrolled()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(bus.wait_connected(), REFUSED_PAUSE_S)


async def _join_identity(token: JoinToken) -> Identity | None:
    try:
        identity, _ = await asyncio.to_thread(token.read)
    except SiteError as error:
        _log.error("join_token_unusable", extra={"error": str(error)})
        return None
    return identity
