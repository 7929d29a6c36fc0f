# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Has every server of a site read its configuration again; connected clients stay.

The bus given must be connected as the system account's user, with `system_connection`.
"""

from collections.abc import Sequence

from pydantic import BaseModel

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError
from helexa.protocol.subjects import subject_of
from helexa.site.asking import ANSWER_WITHIN_S, ServerAnswer, ask_servers, find_servers
from helexa.site.errors import ReloadError


class _Fault(BaseModel):
    description: str = ""


class _Answer(ServerAnswer):
    error: _Fault | None = None


def system_connection(servers: Sequence[str], seed: str) -> Connection:
    """Return the connection of the user that may reload servers."""
    return Connection(
        servers=tuple(servers),
        name="helexa-system",
        seed=seed,
        inbox_prefix=subjects.SYSTEM_INBOX,
    )


async def reload_servers(
    bus: Bus, *, expected: int | None = None, deadline_s: float = ANSWER_WITHIN_S
) -> None:
    """Return when the site's `expected` servers run with what their files say now.

    Without `expected`, those count that answer: servers know of each other, but also for a while of
    one that has died.

    Raises:
        ReloadError: a server finds its files wrong; it keeps what it had.
        UnavailableError: fewer servers answered within `deadline_s`. Those that did have reloaded;
            one that is down reads its files when it starts.
    """
    found = await find_servers(bus, expected, deadline_s)
    reloads = [subject_of(subjects.SERVER_RELOAD, server=answer.server.id) for answer in found]
    answers = await ask_servers(bus, reloads, _Answer, len(reloads), deadline_s)
    for answer in answers:
        if answer.error is not None:
            raise ReloadError(f"{answer.server.name}: {answer.error.description}")
    counted = expected or max(1, len(found))
    if len(answers) < counted:
        raise UnavailableError(f"{len(answers)} of the site's {counted} servers have reloaded")
