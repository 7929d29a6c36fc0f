# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bulk work at the gateway: queued, claimed by neurons that pull, answered as any other."""

import httpx
from tests.gateway.conftest import MODEL
from tests.gateway.roles import Neuron

BULK = {"x-helexa-priority": "bulk"}
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


async def test_a_bulk_request_is_pulled_and_answered(
    http: httpx.AsyncClient, neuron: Neuron
) -> None:
    answer = await http.post("/v1/chat/completions", json=BODY, headers=BULK)
    assert neuron.pulled
    assert answer.status_code == 200
