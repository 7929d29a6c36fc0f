# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""More of everything, without configuration."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from tests.site_up.site import MODEL, site_up

CHATS = 200


@pytest.mark.accepts("NET-10", "CX-2")
async def test_two_hundred_chats_at_once_are_shared_by_all_neurons(tmp_path: Path) -> None:
    counts = ("--gateways", "2", "--schedulers", "2", "--provisioners", "2", "--neurons", "3")
    shown = {"HELEXA_GATEWAY_SHOW_ROUTE": "true"}
    async with site_up(tmp_path / "data", *counts, variables=shown) as site:
        served: Counter[str] = Counter()
        clients = [
            AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
            for url in site.gateways
        ]

        async def ask(client: AsyncOpenAI) -> None:
            answer = await client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=[{"role": "user", "content": "What is the capital of Norway?"}],
                temperature=0,
                extra_headers={"x-helexa-show-route": "true"},
            )
            message = answer.parse().choices[0].message
            assert message.content == "The capital of Norway is Oslo."
            served[answer.headers["x-helexa-neuron"]] += 1

        await asyncio.gather(*(ask(clients[number % 2]) for number in range(CHATS)))
        for client in clients:
            await client.close()
        assert sum(served.values()) == CHATS
        assert len(served) == 3
        assert min(served.values()) >= CHATS * 0.1, served
