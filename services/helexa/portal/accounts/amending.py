# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Changes of records that any replica may change."""

import asyncio
import random
from collections.abc import Callable

from helexa.bus.buckets import Bucket, Entry, RecordT
from helexa.protocol.errors import ConflictError, NotFoundError, UnavailableError

ATTEMPTS = 12
BACKOFF_S = 0.01


async def amend(
    bucket: Bucket[RecordT], key: str, rule: Callable[[RecordT], RecordT]
) -> Entry[RecordT]:
    """Replace the record under `key` by `rule` of it, however many others change it meanwhile.

    Raises:
        NotFoundError: there is no record.
        UnavailableError: the bucket cannot be reached, or others were first again and again.
        HelexaError: what `rule` raises.
    """
    for attempt in range(ATTEMPTS):
        entry = await bucket.get(key)
        if entry is None:
            raise NotFoundError
        changed = rule(entry.value)
        if changed == entry.value:
            return entry
        try:
            return Entry(changed, await bucket.replace(key, changed, entry.revision))
        except ConflictError:
            # A copy of the bucket that lags shows the old record until it has caught up.
            await asyncio.sleep(random.uniform(0, BACKOFF_S * 2**attempt))  # noqa: S311 - no secret
    raise UnavailableError("Others change the same record.", retry_after_s=1)
