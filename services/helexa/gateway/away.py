# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Waiting for who is away for a moment: a service that restarts, a server that comes back."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from helexa.protocol import errors

_SILENCE = (errors.UnavailableError, errors.NoRespondersError, errors.DeadlineExceededError)
ReplyT = TypeVar("ReplyT")


class Away:
    """How long requests wait for a service that does not answer."""

    def __init__(self, timeout_s: float) -> None:
        """From the first time that nobody answers, wait so long for somebody who does.

        That is counted once for all requests: the later ones need not wait in vain.
        """
        self._timeout_s = timeout_s
        self._silent_since: float | None = None

    async def ask(self, ask: Callable[[], Awaitable[ReplyT]]) -> ReplyT:
        """Return what `ask` returns, asking again while nobody answers.

        Raises:
            HelexaError: what the service says, or that nobody answered for too long.
        """
        try:
            reply = await ask()
        except errors.HelexaError as error:
            if not self._nobody_answered(error):
                raise
            reply = await self._again(ask)
        self._silent_since = None
        return reply

    async def _again(self, ask: Callable[[], Awaitable[ReplyT]]) -> ReplyT:
        # Made only when it is needed: retrying machinery costs as much as the request itself.
        retrying = AsyncRetrying(
            stop=self._is_too_long,
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            retry=retry_if_exception(self._nobody_answered),
            reraise=True,
        )

        async def once() -> ReplyT:
            return await ask()

        return await retrying(once)

    def _nobody_answered(self, error: BaseException) -> bool:
        """Note, and return, whether the error is that nobody could; others are an answer."""
        is_silence = type(error) in _SILENCE
        if not is_silence:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()
        return is_silence

    def _is_too_long(self, _: RetryCallState) -> bool:
        since = self._silent_since
        return since is not None and time.monotonic() - since > self._timeout_s
