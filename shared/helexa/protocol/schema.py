# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The JSON schema of wire types, of both kinds."""

from collections.abc import Iterable

import msgspec
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from helexa.protocol.messages.base import AnyMessage, HotMessage, Message


def definitions(kinds: Iterable[type[AnyMessage]]) -> dict[str, object]:
    """Return the schema of each of `kinds` and of what they hold, by its name."""
    listed = list(kinds)
    _, found = models_json_schema(
        [(kind, "validation") for kind in listed if issubclass(kind, Message)]
    )
    _, hot = msgspec.json.schema_components(
        [kind for kind in listed if issubclass(kind, HotMessage)],
        schema_hook=lambda kind: TypeAdapter(kind).json_schema(),
        ref_template="#/$defs/{name}",
    )
    return {**found.get("$defs", {}), **hot}
