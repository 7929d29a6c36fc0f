# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How durable a site's streams are, as its services are told."""

from helexa.bus.resources import Durability
from helexa.process.settings import StreamSettings


def durability_of(settings: StreamSettings) -> Durability:
    """Return what `settings` say of streams and buckets."""
    return Durability(
        replicas=settings.stream_replicas,
        token_storage=settings.token_storage,
        token_log_bytes=settings.token_log_bytes,
    )
