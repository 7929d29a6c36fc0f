# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the parts that serve requests have in common."""

from dataclasses import dataclass

from helexa.gateway.attempts import Attempts
from helexa.gateway.authority import Authority
from helexa.gateway.bulk import BulkDesk
from helexa.gateway.dispatch import Dispatcher
from helexa.gateway.fleet import Fleet
from helexa.gateway.homes import Homes
from helexa.gateway.inbox import Inbox
from helexa.gateway.outcomes import Outcomes
from helexa.gateway.rates import Rates
from helexa.gateway.reading import Limits


@dataclass(frozen=True, slots=True)
class Desk:
    """What every exchange works with."""

    inbox: Inbox
    homes: Homes
    attempts: Attempts
    dispatcher: Dispatcher
    bulk: BulkDesk
    fleet: Fleet
    outcomes: Outcomes
    authority: Authority
    rates: Rates
    limits: Limits
    max_attempts: int
    client_buffer_bytes: int
    show_route: bool
