# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a site's servers have on disk what they acknowledge.

By default a server syncs its files every two minutes: a power cut then loses whatever it has
acknowledged since (measured: all of 67,870 messages). The bus given must be connected as the system
account's user, with `helexa.site.reload.system_connection`.
"""

from pydantic import BaseModel

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError
from helexa.site.asking import ANSWER_WITHIN_S, ServerAnswer, ask_servers, find_servers
from helexa.site.errors import NotDurableError


class _Config(BaseModel):
    sync_always: bool = False


class _JetStream(BaseModel):
    disabled: bool = False
    config: _Config = _Config()


class _Answer(ServerAnswer):
    data: _JetStream


async def require_sync_always(
    bus: Bus, *, expected: int | None = None, deadline_s: float = ANSWER_WITHIN_S
) -> None:
    """Return if every server that stores streams syncs what it writes before it acknowledges it.

    Args:
        bus: A connection to the system account.
        expected: How many servers the site has; without it those count that answer.
        deadline_s: How long to wait for the answers, twice.

    Raises:
        NotDurableError: a server does not.
        UnavailableError: fewer servers have answered in time.
    """
    counted = expected or max(1, len(await find_servers(bus, None, deadline_s)))
    answers = await ask_servers(bus, [subjects.SERVER_PING_JETSTREAM], _Answer, counted, deadline_s)
    if len(answers) < counted:
        raise UnavailableError(f"{len(answers)} of the site's {counted} servers have answered")
    lazy = [
        answer.server.name or answer.server.id
        for answer in answers
        if not (answer.data.disabled or answer.data.config.sync_always)
    ]
    if lazy:
        raise NotDurableError(
            f"{', '.join(sorted(lazy))} would lose acknowledged data when the power fails: "
            "set 'sync_interval: always' in the jetstream section of its configuration"
        )
