# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bodies too large for one message: they go through an object store, and their name travels."""

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from helexa.protocol import resources
from helexa.protocol.errors import NotFoundError, RequestTooLargeError, UnavailableError
from helexa.protocol.naming import random_id

MAX_BODY_BYTES = 128 * resources.MIB


async def put_body(stores: JetStreamContext, data: bytes) -> str:
    """Store `data` for a few minutes and return the name to claim it by.

    Raises:
        RequestTooLargeError: more than `MAX_BODY_BYTES`.
        UnavailableError: the store cannot be reached.
    """
    if len(data) > MAX_BODY_BYTES:
        raise RequestTooLargeError(f"{len(data)} bytes; at most {MAX_BODY_BYTES} can travel")
    name = random_id(128)
    try:
        store = await stores.object_store(resources.BODIES.name)
        await store.put(name, data)
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("a large body could not be stored") from error
    return name


async def get_body(stores: JetStreamContext, name: str) -> bytes:
    """Return the bytes stored under `name`.

    Raises:
        NotFoundError: they are gone.
        UnavailableError: the store cannot be reached.
    """
    try:
        store = await stores.object_store(resources.BODIES.name)
        found = await store.get(name)
    except nats.js.errors.NotFoundError as error:
        raise NotFoundError("the request's body is gone") from error
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("a large body could not be read") from error
    return found.data or b""
