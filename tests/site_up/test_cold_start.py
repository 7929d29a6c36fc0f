# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A hundred first requests at once for a model that is loaded nowhere; two of everything."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from tests.faults.engine import ROOT
from tests.faults.order import Order
from tests.site_up.site import RunningSite, site_up

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol import subjects
from helexa.protocol.messages.events import EventType, StateEvent
from helexa.protocol.messages.models import BackendKind
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.keys import Identity
from helexa.site.layout import DataDir

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKING = 100
LATE_S = 4
"""So long the engine is started before it serves, as one that reads its weights."""
DEADLINE_S = 120.0
LOOK_S = 0.05
NORWAY = ("What is the capital of Norway?", "The capital of Norway is Oslo.")
HEARTBEAT = ": keep-alive"
TWO_OF_EVERYTHING = (
    *("--gateways", "2", "--schedulers", "2"),
    *("--provisioners", "2", "--neurons", "2"),
)


@dataclass
class Crowd:
    """Stock clients that ask both gateways, every second one for a stream, and never again."""

    site: RunningSite
    heartbeats: list[int] = field(default_factory=list)
    """Before the first event of each stream that was looked at."""

    async def ask(self, model: str, expected: Sequence[tuple[str, str]]) -> list[str]:
        """Ask all prompts at once; return what came that is not the answer beside its prompt."""
        # The stock client passes over comments, so that half of the streams are read as they come.
        ways = (self._whole, self._streamed, self._whole, self._raw)
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
                )
                for url in self.site.gateways
            ]
            answers = await asyncio.gather(
                *(
                    ways[number % 4](
                        clients[number // 4 % 2], model, {"role": "user", "content": prompt}
                    )
                    for number, (prompt, _) in enumerate(expected)
                ),
                return_exceptions=True,
            )
        pairs = zip(answers, expected, strict=True)
        return [repr(answer) for answer, (_, right) in pairs if answer != right]

    async def _whole(
        self, client: AsyncOpenAI, model: str, message: ChatCompletionUserMessageParam
    ) -> str:
        answer = await client.chat.completions.create(
            model=model, messages=[message], temperature=0, timeout=DEADLINE_S
        )
        return answer.choices[0].message.content or ""

    async def _streamed(
        self, client: AsyncOpenAI, model: str, message: ChatCompletionUserMessageParam
    ) -> str:
        chunks = await client.chat.completions.create(
            model=model, messages=[message], temperature=0, stream=True, timeout=DEADLINE_S
        )
        return "".join(
            [choice.delta.content or "" async for chunk in chunks for choice in chunk.choices]
        )

    async def _raw(
        self, client: AsyncOpenAI, model: str, message: ChatCompletionUserMessageParam
    ) -> str:
        async with client.chat.completions.with_streaming_response.create(
            model=model, messages=[message], temperature=0, stream=True, timeout=DEADLINE_S
        ) as response:
            lines = [line async for line in response.iter_lines()]
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        first = next((k for k, line in enumerate(lines) if line.startswith("data:")), len(lines))
        self.heartbeats.append(lines[:first].count(HEARTBEAT))
        return "".join(
            choice["delta"].get("content") or "" for event in events for choice in event["choices"]
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningSite]:
    async with site_up(tmp_path_factory.mktemp("site"), *TWO_OF_EVERYTHING) as running:
        yield running


@contextlib.asynccontextmanager
async def orders(site: RunningSite, model: str) -> AsyncIterator[list[str]]:
    """Keep the orders that neurons are sent for a model inside the block."""
    heard: list[str] = []

    def take(event: StateEvent) -> None:
        if event.type == EventType.PROVISIONING_SENT and event.model == model:
            heard.append(event.reason or "")

    seed = Identity.load(DataDir(site.data).role_key(Role.ADMIN)).seed
    urls = tuple(site.file["nats_urls"])
    async with Bus(Connection(urls, "test", seed, inbox_prefix(Role.ADMIN))) as bus:
        await bus.subscribe(subjects.STATE_EVENT, take)
        await bus.client.flush()
        yield heard


async def add_cold(site: RunningSite, name: str, config: Mapping[str, object]) -> None:
    """Add a model that is loaded once somebody asks for it; return when both gateways know it."""
    async with site.orchestrator() as http, asyncio.timeout(DEADLINE_S):
        policy = {"policy": {"min_replicas": 0}}
        (await http.put(f"/api/models/{name}", json={**config, **policy})).raise_for_status()
        for url in site.gateways:
            while name not in (await http.get(f"{url}/v1/models")).text:
                await asyncio.sleep(LOOK_S)


def engine(seconds: int) -> Sequence[str]:
    """Return the command of a paced engine that serves so long after its start."""
    script = f"cd {ROOT}; sleep {seconds}; exec {sys.executable} -m tests.faults.engine --port $0"
    return ("/bin/sh", "-c", script, "${PORT}")


async def test_the_first_hundred_of_a_slow_model_make_one_load_and_are_all_answered(
    site: RunningSite,
) -> None:
    asked = [Order(tokens=8, pace=40.0, seed=f"c{number}") for number in range(ASKING)]
    config = {"backend_kind": BackendKind.COMMAND, "command": engine(LATE_S), "slots": 16}
    await add_cold(site, "slow", config)
    crowd = Crowd(site)
    async with orders(site, "slow") as heard:
        wrong = await crowd.ask("slow", [(order.prompt(), order.text()) for order in asked])
    assert wrong == [], site.logs()
    assert heard == ["upsert_model_config", "load_model"]
    assert len(crowd.heartbeats) == ASKING // 4
    # The first one comes after a second, and then one every second.
    assert min(crowd.heartbeats) >= LATE_S - 2


async def test_the_first_hundred_of_a_llama_model_make_one_load_and_are_all_answered(
    site: RunningSite,
) -> None:
    config = {"backend_kind": BackendKind.LLAMA_CPP, "source": "embedded:helexa-tiny"}
    await add_cold(site, "cold-tiny", config)
    async with orders(site, "cold-tiny") as heard:
        wrong = await Crowd(site).ask("cold-tiny", [NORWAY] * ASKING)
    assert wrong == [], site.logs()
    assert heard == ["upsert_model_config", "load_model"]
