# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Asks all servers of a site something, over the system account."""

import asyncio
from collections.abc import Collection, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError
from helexa.protocol.naming import random_id

ANSWER_WITHIN_S = 5.0


class _Server(BaseModel):
    id: str
    name: str = ""


class _Load(BaseModel):
    active_servers: int = 1
    """Servers that the one that answers knows to run, itself included."""


class ServerAnswer(BaseModel):
    """What every answer of a server has."""

    server: _Server
    statsz: _Load = _Load()


AnswerT = TypeVar("AnswerT", bound=ServerAnswer)


async def find_servers(
    bus: Bus, expected: int | None = None, within_s: float = ANSWER_WITHIN_S
) -> list[ServerAnswer]:
    """Return the servers that answer; without `expected` as many as they say there are.

    Raises:
        UnavailableError: there is no connection.
    """
    return await ask_servers(bus, [subjects.SERVER_PING], ServerAnswer, expected, within_s)


async def ask_servers(
    bus: Bus, asked: Sequence[str], kind: type[AnswerT], expected: int | None, within_s: float
) -> list[AnswerT]:
    """Return the answers to all that is `asked`: as many as `expected`, or what came in time.

    Raises:
        UnavailableError: there is no connection.
    """
    answers: dict[str, AnswerT] = {}
    complete = asyncio.Event()

    def take(_: str, data: bytes) -> None:
        try:
            answer = kind.model_validate_json(data)
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


def _known(answers: Collection[ServerAnswer]) -> int:
    return max((answer.statsz.active_servers for answer in answers), default=1)
