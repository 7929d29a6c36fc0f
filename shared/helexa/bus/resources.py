# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Makes the declared streams, buckets and stores exist."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext, api

from helexa.bus.client import Bus
from helexa.protocol import resources, subjects
from helexa.protocol.subjects import Role

_log = logging.getLogger(__name__)

RETRY_S = 0.5
NAME_IN_USE = 10058
"""JetStream's code for a stream that exists with another configuration."""
CANNOT_CHANGE = 10052
"""JetStream's code for a change that an existing stream cannot take."""


@dataclass(frozen=True, slots=True)
class Durability:
    """How many servers keep each stream, and whether the token log is on disk."""

    replicas: int = 1
    token_storage: resources.Storage = "memory"
    token_log_bytes: int = resources.TOKENS.max_bytes


async def ensure_resources(bus: Bus, role: Role, durability: Durability) -> None:
    """Create what `role` owns, and bring what exists to its declaration. Waits for JetStream.

    Of several processes that are told different things, the one that started last has its way.
    """
    await _ensure(bus, role, durability, _create_or_change)


async def restore_resources(bus: Bus, role: Role, durability: Durability) -> None:
    """Create what `role` owns and a server has lost; what exists stays as it is.

    Waits for JetStream. For reconnections: a process with old settings must not undo there what one
    that started after it has changed.
    """
    await _ensure(bus, role, durability, _create)


_Step = Callable[[JetStreamContext, api.StreamConfig], Awaitable[object]]


async def _ensure(bus: Bus, role: Role, durability: Durability, step: _Step) -> None:
    await bus.wait_connected()
    for stream in resources.STREAMS:
        if role in stream.owners:
            await _until_done(bus, stream.name, _stream_config(stream, durability), step)
    for bucket in resources.BUCKETS:
        if role in bucket.owners:
            await _until_done(bus, bucket.name, _bucket_config(bucket, durability), step)
    for store in resources.OBJECT_STORES:
        if role in store.owners:
            await _until_done(bus, store.name, _store_config(store, durability), step)


async def _until_done(bus: Bus, name: str, config: api.StreamConfig, step: _Step) -> None:
    failure: str | None = None
    while True:
        try:
            await step(bus.jetstream, config)
        except (TimeoutError, nats.errors.Error) as error:
            if str(error) != failure:
                failure = str(error)
                _log.warning("resource_not_ready", extra={"resource": name, "error": failure})
            await asyncio.sleep(RETRY_S)
        else:
            return


async def _create(jetstream: JetStreamContext, config: api.StreamConfig) -> bool:
    """Create a stream; return False if it exists with another configuration."""
    try:
        await jetstream.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != NAME_IN_USE:
            raise
        return False
    return True


async def _create_or_change(jetstream: JetStreamContext, config: api.StreamConfig) -> None:
    if await _create(jetstream, config):
        return
    try:
        await jetstream.update_stream(config)
    except nats.js.errors.APIError as error:
        if error.err_code != CANNOT_CHANGE:
            raise
        await _change_the_rest(jetstream, config, str(error.description))


async def _change_the_rest(
    jetstream: JetStreamContext, config: api.StreamConfig, reason: str
) -> None:
    """Bring a stream to `config` in all that an existing one can change."""
    found = (await jetstream.stream_info(str(config.name))).config
    is_async = found.persist_mode is api.PersistMode.ASYNC
    kept = config.evolve(
        storage=found.storage,
        persist_mode=found.persist_mode,
        # What is flushed in the background cannot be replicated (seen).
        num_replicas=1 if is_async else config.num_replicas,
    )
    await jetstream.update_stream(kept)
    _log.warning("resource_stays", extra={"resource": config.name, "error": reason})


def _stream_config(stream: resources.Stream, durability: Durability) -> api.StreamConfig:
    is_tokens = stream.name == resources.TOKENS.name
    storage = durability.token_storage if is_tokens else stream.storage
    # Flushed in the background, a stream can never be given replicas (seen): none but this one,
    # which is worth nothing two minutes later.
    background = is_tokens and storage == "file" and durability.replicas == 1
    return api.StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        storage=api.StorageType(storage),
        retention=(
            api.RetentionPolicy.WORK_QUEUE if stream.work_queue else api.RetentionPolicy.LIMITS
        ),
        discard=api.DiscardPolicy.NEW if stream.discard_new else api.DiscardPolicy.OLD,
        max_bytes=durability.token_log_bytes if is_tokens else stream.max_bytes,
        max_age=stream.max_age_s,
        num_replicas=durability.replicas,
        allow_direct=True,
        no_ack=stream.no_ack,
        deny_delete=stream.append_only,
        deny_purge=stream.append_only,
        persist_mode=api.PersistMode.ASYNC if background else None,
    )


def _bucket_config(bucket: resources.Bucket, durability: Durability) -> api.StreamConfig:
    # The stream that the NATS clients make for a bucket (ADR-8), so that `nats kv` reads it.
    return api.StreamConfig(
        name=subjects.bucket_stream(bucket.name),
        subjects=[subjects.bucket_key(bucket.name)],
        max_msgs_per_subject=bucket.history,
        max_bytes=bucket.max_bytes,
        max_age=bucket.ttl_s or 0,
        storage=api.StorageType.FILE,
        num_replicas=durability.replicas,
        allow_rollup_hdrs=True,
        allow_direct=True,
        deny_delete=True,
        discard=api.DiscardPolicy.NEW,
        duplicate_window=min(bucket.ttl_s or 120.0, 120.0),
    )


def _store_config(store: resources.ObjectStore, durability: Durability) -> api.StreamConfig:
    # As the NATS clients make an object store (ADR-20).
    return api.StreamConfig(
        name=subjects.object_stream(store.name),
        subjects=subjects.object_subjects(store.name),
        max_bytes=store.max_bytes,
        max_age=store.ttl_s or 0,
        storage=api.StorageType(store.storage),
        num_replicas=durability.replicas,
        allow_rollup_hdrs=True,
        allow_direct=True,
        discard=api.DiscardPolicy.NEW,
    )
