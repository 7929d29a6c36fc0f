# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A join token that stands in a file, for neurons that are started without being told one.

It is renewed long before it expires, so that a copy which gets away is soon of no use.
"""

import asyncio
import logging
import time
from pathlib import Path

from helexa.bus.lease import Lease
from helexa.protocol.errors import HelexaError
from helexa.provisioner.enrolment import Enrolment
from helexa.site.enrolment import parse_join_token
from helexa.site.errors import JoinTokenError, KeyFileError, SiteError
from helexa.site.files import read_secret, write_secret

_log = logging.getLogger(__name__)

RETRY_S = 1.0
RENEW_AT = 0.5
"""The part of its time that a token has left when it is renewed."""
LOOK_S = 60.0
"""Another leader may have lost the file, so it is looked at more often than it is renewed."""


class StandingToken:
    """The token that the leading provisioner keeps in a file."""

    def __init__(self, enrolment: Enrolment, lease: Lease, file: Path, lasts_s: float) -> None:
        """Keep a token that lasts `lasts_s` seconds in `file` while `lease` is held."""
        self._enrolment = enrolment
        self._lease = lease
        self._file = file
        self._lasts_s = lasts_s

    async def run(self) -> None:
        """Renew the token when it is due, until cancelled."""
        while True:
            await self._lease.wait_held()
            try:
                await asyncio.sleep(await self._renew())
            except (HelexaError, SiteError) as error:
                _log.warning("join_token_not_renewed", extra={"error": str(error)})
                await asyncio.sleep(RETRY_S)

    async def _renew(self) -> float:
        """Renew the token if it is due, and return how long to wait before the next look."""
        left_s = await self._left_s()
        renew_s = self._lasts_s * RENEW_AT
        if left_s < renew_s:
            token = await self._enrolment.open_token(self._lasts_s)
            await asyncio.to_thread(write_secret, self._file, token.text + "\n")
            _log.info("join_token_renewed", extra={"expires_s": token.expires_s})
            left_s = self._lasts_s
        return min(LOOK_S, max(RETRY_S, left_s - renew_s))

    async def _left_s(self) -> float:
        """Return for how long the token in the file is good, 0 where it is of no use."""
        if not self._file.exists():
            return 0.0
        try:
            identity, urls = parse_join_token(await asyncio.to_thread(read_secret, self._file))
        except (JoinTokenError, KeyFileError):
            return 0.0
        expires_s = await self._enrolment.token_expiry_s(identity.public)
        return max(0.0, expires_s - time.time()) if urls == self._enrolment.join_urls else 0.0
