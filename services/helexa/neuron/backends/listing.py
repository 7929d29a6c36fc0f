# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a server says of its models in `/v1/models`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from helexa.neuron.backends.client import HttpClient
from helexa.neuron.backends.faults import error_of_response

GO_ON_ALONE = frozenset({"llamacpp", "llama-swap"})
"""Owners of models whose servers finish a whole answer that nobody waits for: llama.cpp looks at
the connection only when it writes (seen with builds of 2025 and 2026). vLLM, SGLang and Ollama end
the work."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The models of a server."""

    names: frozenset[str] = frozenset()
    """Empty where the server has no such route."""
    context_tokens: int | None = None
    """Of the model asked for, where the server says it."""
    owner: str = ""
    """Of that model, as the server says it: usually the name of its software."""

    @property
    def stops_when_left(self) -> bool:
        """Whether the server may be taken to give up a whole answer that nobody waits for."""
        return self.owner not in GO_ON_ALONE


async def read_listing(client: HttpClient, model: str) -> Listing:
    """Return what the server lists; a server without the route has an empty listing.

    Args:
        client: of the server.
        model: the name whose context is read.

    Raises:
        HelexaError: the server refused, or cannot be reached.
    """
    status, body = await client.fetch("/v1/models")
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return Listing()
    if status != HTTPStatus.OK:
        raise error_of_response(status, {}, body)
    try:
        found = json.loads(body)
    except ValueError:
        return Listing()
    entries = found.get("data") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        return Listing()
    models = {str(entry.get("id")): entry for entry in entries if isinstance(entry, dict)}
    entry = models.get(model, {})
    return Listing(frozenset(models), _context(entry), str(entry.get("owned_by") or ""))


def _context(entry: Mapping[str, object]) -> int | None:
    """Named max_model_len by vLLM and SGLang; by llama.cpp n_ctx, of one slot, inside meta."""
    meta = entry.get("meta")
    value = entry.get("max_model_len")
    if value is None and isinstance(meta, dict):
        value = meta.get("n_ctx")
    return value if isinstance(value, int) and value > 0 else None
