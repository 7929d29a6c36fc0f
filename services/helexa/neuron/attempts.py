# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The attempts that a neuron knows: those at work, and for a while those that have ended."""

import time
from collections import deque
from collections.abc import Iterator

from helexa.neuron.execution import Execution
from helexa.neuron.past import Past
from helexa.neuron.retention import Retention

Known = Execution | Past


class Attempts:
    """The attempts at one site."""

    def __init__(self, retention: Retention) -> None:
        """Know what has ended for as long as `retention` keeps its frames."""
        self.running: set[Execution] = set()
        self._retention = retention
        self._by_request: dict[str, tuple[Known, ...]] = {}
        self._ended: deque[Past] = deque()

    def __iter__(self) -> Iterator[Known]:
        """All of them, what has ended first."""
        yield from self._ended
        yield from self.running

    def find(self, request_id: str, attempt: int) -> Known | None:
        """Return one attempt."""
        for found in self._by_request.get(request_id, ()):
            if found.attempt == attempt:
                return found
        return None

    def of(self, request_id: str) -> tuple[Known, ...]:
        """Return all attempts of a request."""
        return self._by_request.get(request_id, ())

    def begin(self, execution: Execution) -> None:
        """Know an attempt that begins."""
        request_id = execution.request.request_id
        known = self._by_request.get(request_id, ())
        self._by_request[request_id] = (*known, execution)
        self.running.add(execution)
        self._retention.begin()

    def end(self, execution: Execution) -> None:
        """Know of an attempt only what is of use after its end."""
        request_id, outbox = execution.request.request_id, execution.outbox
        past = Past(
            request_id,
            execution.attempt,
            execution.owner,
            outbox,
            execution.is_settled,
            time.monotonic(),
        )
        known = self._by_request[request_id]
        # Most requests have one attempt.
        self._by_request[request_id] = (
            (past,)
            if len(known) == 1
            else tuple(past if found is execution else found for found in known)
        )
        self.running.discard(execution)
        self._ended.append(past)
        self._retention.add(outbox)

    def forget(self, now_s: float) -> None:
        """Forget what ended long ago, or had to make room for younger answers."""
        ended, by_request = self._ended, self._by_request
        while ended and self._is_over(ended[0], now_s):
            past = ended.popleft()
            self._retention.release(past.outbox)
            known = by_request.pop(past.request_id)
            if len(known) > 1:
                by_request[past.request_id] = tuple(each for each in known if each is not past)

    def _is_over(self, past: Past, now_s: float) -> bool:
        is_old = now_s - past.ended_at_s >= self._retention.keep_s
        return is_old or not self._retention.holds(past.outbox)
