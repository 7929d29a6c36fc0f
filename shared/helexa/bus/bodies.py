# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bodies too large for one message: they go through an object store, and their name travels."""

import io

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ObjectMeta, ObjectMetaOptions

from helexa.protocol import resources
from helexa.protocol.errors import NotFoundError, RequestTooLargeError, UnavailableError
from helexa.protocol.naming import random_id

MAX_BODY_BYTES = 128 * resources.MIB
PIECE_BYTES = resources.MIB
"""Each piece is waited for, so that few large ones are better than many small ones."""
_IN_PIECES = ObjectMetaOptions(max_chunk_size=PIECE_BYTES)


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
        await store.put(name, data, ObjectMeta(name=name, options=_IN_PIECES))
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("a large body could not be stored") from error
    return name


async def get_body(stores: JetStreamContext, name: str) -> bytes:
    """Return the bytes stored under `name`.

    Raises:
        NotFoundError: they are gone.
        UnavailableError: the store cannot be reached.
    """
    body = io.BytesIO()
    try:
        store = await stores.object_store(resources.BODIES.name)
        # Left to itself, nats-py copies all that it has with each piece that comes.
        await store.get(name, writeinto=body)
    except nats.js.errors.NotFoundError as error:
        raise NotFoundError("the request's body is gone") from error
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("a large body could not be read") from error
    return body.getvalue()
