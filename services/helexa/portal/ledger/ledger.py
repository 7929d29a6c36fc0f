# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One replica of a portal's ledger: it copies the journal, and writes it while it leads."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine

from helexa.bus.journal import Journal
from helexa.bus.lease import Lease
from helexa.bus.service import Service
from helexa.portal.ledger.client import posted_of
from helexa.portal.ledger.projection import Projection
from helexa.portal.ledger.refusals import Refusal
from helexa.portal.ledger.replica import Replica
from helexa.portal.ledger.sequencer import NOT_WRITING, Sequencer
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError, UnavailableError
from helexa.protocol.messages.ledger import Posted, PostRequest

_log = logging.getLogger(__name__)

RETRY_S = 0.2
CONCURRENCY = 4096
"""Commands in work at once; more are refused as busy."""


def wall_clock_ms() -> int:
    """Return the milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000


class Ledger:
    """A replica's whole life. The journal decides who writes; the lease only keeps order."""

    def __init__(
        self,
        portal: str,
        journal: Journal,
        projection: Projection,
        lease: Lease,
        service: Service,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Name the portal and what it works with; `run` begins, beside the lease's own."""
        self.portal = portal
        self.projection = projection
        self._journal = journal
        self._lease = lease
        self._service = service
        self._clock_ms = clock_ms
        self._replica: Replica | None = None
        self._is_writing = False

    @property
    def is_ready(self) -> bool:
        """Whether the replica has caught up since it was last started or failed."""
        return self._replica is not None

    @property
    def is_writing(self) -> bool:
        """Whether this replica answers commands."""
        return self._is_writing

    async def run(self) -> None:
        """Follow and lead until cancelled.

        Raises:
            LedgerError: journal and projection do not agree, or one of them is damaged. Nothing
                may be served from either.
        """
        async with self._journal.heard():
            while True:
                try:
                    await self._live()
                except HelexaError as error:
                    _log.warning("ledger_starts_anew", extra={"error": error.message})
                finally:
                    self._replica = None
                await asyncio.sleep(RETRY_S)

    async def _live(self) -> None:
        """Follow, lead once, and return when another leads; the state is then read anew."""
        replica = await Replica.open(self.portal, self._journal, self.projection)
        self._replica = replica
        while not self._lease.is_held:
            await _first_of(self._journal.wait_news(), self._lease.wait_held())
            await replica.catch_up()
        await replica.catch_up()
        await self._lead(replica)

    async def _lead(self, replica: Replica) -> None:
        sequencer = Sequencer(replica, self._clock_ms)
        async with self._serving(sequencer):
            await _first_of(sequencer.run(), self._lease.wait_lost())

    @contextlib.asynccontextmanager
    async def _serving(self, sequencer: Sequencer) -> AsyncIterator[None]:
        async def post(request: PostRequest) -> Posted:
            answer = await sequencer.submit(request.command)
            if isinstance(answer, Refusal) and not self._lease.is_held:
                # Another writer may have entered what this one does not know of. What it has
                # entered itself is true all the same.
                raise UnavailableError(NOT_WRITING)
            return posted_of(answer)

        endpoint = await self._service.serve(
            subjects.POST, post, concurrency=CONCURRENCY, portal=self.portal
        )
        self._is_writing = True
        _log.info("ledger_writes", extra={"ledger": self.portal})
        try:
            yield
        finally:
            self._is_writing = False
            await self._service.withdraw(endpoint)
            _log.info("ledger_writes_no_more", extra={"ledger": self.portal})


async def _first_of(*works: Coroutine[object, object, None]) -> None:
    """Return when one has ended, after all the others have been cancelled and have ended.

    Raises what any of them raises.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
