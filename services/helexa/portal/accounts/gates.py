# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How often somebody may try to sign up or log in.

Each replica counts for itself and exactly. So N replicas together let through at most N times as
much as one; a replica that starts anew, once more what it holds.
"""

import time
from dataclasses import dataclass

from helexa.portal.accounts.addresses import address_key
from helexa.process.rates import Allowances, Rate
from helexa.protocol.errors import RateLimitedError

HOUR_S = 3600.0
OF_ADDRESS = Rate(10, 20 / HOUR_S)
OF_CLIENT = Rate(30, 120 / HOUR_S)


@dataclass(frozen=True, slots=True)
class GateRates:
    """What one replica lets through: so many at once, and so many in an hour after that."""

    of_address: Rate = OF_ADDRESS
    """Tries with one address, whoever makes them."""
    of_client: Rate = OF_CLIENT
    """Tries of one client, with whatever address."""


class Gate:
    """One door: what goes through it is counted by address and by client."""

    def __init__(self, rates: GateRates) -> None:
        """Let through what `rates` say."""
        self._rates = rates
        self._addresses = Allowances()
        self._clients = Allowances()

    def enter(self, portal: str, address: str, client: str | None) -> None:
        """Count one try; the address is one of nobody's as soon as of somebody's.

        Args:
            portal: Where.
            address: Of whom, normalised.
            client: Who asks: their network address; `None` where the address alone counts.

        Raises:
            RateLimitedError: too many; it says when to try again.
        """
        now_s = time.monotonic()
        asked = [self._addresses.of(address_key(portal, address), self._rates.of_address, now_s)]
        if client is not None:
            asked.append(self._clients.of(client, self._rates.of_client, now_s))
        wait_s = max(each.wait_s(1) for each in asked)
        if wait_s:
            raise RateLimitedError("Too many tries. Wait a little.", retry_after_s=wait_s)
        for each in asked:
            each.use(1)
