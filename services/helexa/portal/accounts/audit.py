# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who did what to which account: told as events, and kept with them.

Ids only: no addresses, no secrets. Tries that fail are counted and not told, so that nobody can
push out by trying what is kept.
"""

import logging
import time

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.events import StateEvent
from helexa.protocol.subjects import Role, subject_of

_log = logging.getLogger(__name__)

DEADLINE_S = 2.0


class Audit:
    """Tells what has been done."""

    def __init__(self, bus: Bus) -> None:
        """Tell the site's event stream."""
        self._bus = bus

    async def tell(  # noqa: D417 - the rest are the fields of `StateEvent`
        self,
        kind: str,
        *,
        account: str,
        actor: str | None = None,
        key_id: str | None = None,
        state: str | None = None,
    ) -> None:
        """Tell of an `EventType`. What cannot be told is in the log: what is done, stays done.

        Args:
            actor: Who did it, where it was not the user whom it concerns.
        """
        event = StateEvent(
            type=kind,
            at_ms=int(time.time() * 1000),
            account=account,
            actor=actor or account,
            key_id=key_id,
            state=state,
        )
        subject = subject_of(subjects.STATE_EVENT.subject, service=Role.PORTAL, past=kind)
        try:
            await self._bus.publish_stored(
                subject, event.model_dump_json().encode(), deadline_s=DEADLINE_S
            )
        except HelexaError as error:
            told = event.model_dump(exclude_none=True)
            _log.error("audit_not_stored", extra={"audited": told, "error": error.message})
