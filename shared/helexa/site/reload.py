# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Has every server of a site read its configuration again; connected clients stay.

The bus given must be connected as the system account's user, with `system_connection`.
"""

import asyncio
from collections.abc import Collection, Sequence

from pydantic import BaseModel, ValidationError

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError
from helexa.protocol.naming import random_id
from helexa.protocol.subjects import subject_of
from helexa.site.errors import ReloadError

ANSWER_WITHIN_S = 5.0


class _Server(BaseModel):
    id: str
    name: str = ""


class _Fault(BaseModel):
    description: str = ""


class _Load(BaseModel):
    active_servers: int = 1
    """Servers that the one that answers knows to run, itself included."""


class _Answer(BaseModel):
    server: _Server
    error: _Fault | None = None
    statsz: _Load = _Load()


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
    found = await _ask(bus, [subjects.SERVER_PING], expected, deadline_s)
    reloads = [subject_of(subjects.SERVER_RELOAD, server=answer.server.id) for answer in found]
    answers = await _ask(bus, reloads, len(reloads), deadline_s)
    for answer in answers:
        if answer.error is not None:
            raise ReloadError(f"{answer.server.name}: {answer.error.description}")
    counted = expected or max(1, len(found))
    if len(answers) < counted:
        raise UnavailableError(f"{len(answers)} of the site's {counted} servers have reloaded")


def _known(answers: Collection[_Answer]) -> int:
    return max((answer.statsz.active_servers for answer in answers), default=1)


async def _ask(
    bus: Bus, asked: Sequence[str], expected: int | None, within_s: float
) -> list[_Answer]:
    answers: dict[str, _Answer] = {}
    complete = asyncio.Event()

    def take(_: str, data: bytes) -> None:
        try:
            answer = _Answer.model_validate_json(data)
        except ValidationError:
            return
        answers[answer.server.id] = answer
        if len(answers) >= (expected or _known(answers.values())):
            complete.set()

    if not asked:
        return []
    if not bus.is_connected:
        raise UnavailableError("the site's servers cannot be reached")
    inbox = f"{bus.connection.inbox_prefix}.{random_id()}"
    subscription = await bus.subscribe_raw(inbox, take)
    try:
        for subject in asked:
            await bus.publish_raw(subject, b"", reply=inbox)
        async with asyncio.timeout(within_s):
            await complete.wait()
    except TimeoutError:
        pass  # Whoever has answered by now counts.
    finally:
        await subscription.unsubscribe()
    return list(answers.values())
