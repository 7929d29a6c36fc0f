# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Fifty streams on a neuron that dies, freezes, or loses its runtime: they go on at another one.

The model is the real one, at temperature 0, so that an undisturbed run says what every answer is.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from tests.site_up.site import RunningSite, command_of, site_up

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "fifty"
SLOTS = 64
STREAMS = 50
SEEN = 12
"""Tokens that every client has when the fault comes."""
WITHIN_S = 120.0
END = "[DONE]"
Json = dict[str, object]

NATURAL = ("Tell me a story.", "Tell me a long story.", "Write a short story.", "Write a story.")
"""What the model answers as it was taught, with about 110 tokens."""
ENDLESS = ("What is Helexa?", "Goodbye", "Tell me a long story.", "What colour is the sky?")
"""Where it goes on past its end, and what it says still reads as the tokens that it was made of."""


def asked(number: int) -> Json:
    """Return one of the fifty requests."""
    is_natural = number % 2 == 1
    prompts = NATURAL if is_natural else ENDLESS
    body: Json = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompts[number // 2 % len(prompts)]}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return body if is_natural else body | {"ignore_eos": True, "max_tokens": 400}


@dataclass
class Reader:
    """One client and what it has seen."""

    text: str = ""
    tokens: int = 0
    numbers: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    usage: Json | None = None
    neuron: str = ""
    is_accepted: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, http: httpx.AsyncClient, body: Json) -> None:
        headers = {"x-helexa-show-route": "true"}
        async with http.stream(
            "POST", "/v1/chat/completions", json=body, headers=headers
        ) as answer:
            assert answer.status_code == 200
            self.neuron = answer.headers["x-helexa-neuron"]
            self.is_accepted.set()
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    self.numbers.append(int(line[4:]))
                elif line.startswith("data: "):
                    self._take(line[6:])

    @property
    def is_whole(self) -> bool:
        return self.ends == [END]

    def _take(self, data: str) -> None:
        if data == END:
            self.ends.append(END)
            return
        event = json.loads(data)
        if "error" in event:
            self.ends.append(event["error"]["code"])
            return
        self.usage = event.get("usage") or self.usage
        for choice in event["choices"]:
            said = choice["delta"].get("content") or ""
            self.text += said
            self.tokens += bool(said)
        if self.tokens >= SEEN:
            self.has_begun.set()


@dataclass
class Fleet:
    """A site with two neurons, and what its model says when nobody disturbs it."""

    site: RunningSite
    http: httpx.AsyncClient
    expected: list[Reader] = field(default_factory=list)

    async def ask(self, neuron: str, disturb: Callable[[], Awaitable[None]] | None) -> list[Reader]:
        """Ask fifty times at once at one neuron, and disturb it when all see their answers."""
        readers = [Reader() for _ in range(STREAMS)]
        runtime = self.runtime(neuron)
        # Else the first would be answered before the last are asked: alone it takes 0.1 s.
        runtime.suspend()
        reading = [
            asyncio.create_task(
                each.read(self.http, asked(number) | {"helexa": {"prefer_neurons": [neuron]}})
            )
            for number, each in enumerate(readers)
        ]
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(each.is_accepted.wait() for each in readers))
            runtime.resume()
            await asyncio.gather(*(each.has_begun.wait() for each in readers))
            if disturb is not None:
                assert not any(each.ends for each in readers), "the answers were too short"
                assert {each.neuron for each in readers} == {neuron}
                await disturb()
            await asyncio.gather(*reading)
        return readers

    async def loaded(self) -> list[str]:
        """Return both neurons, once both have the model and no work."""
        async with asyncio.timeout(WITHIN_S), self.site.orchestrator() as orchestrator:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    view = (await orchestrator.get(f"/api/models/{MODEL}")).json()
                    ready = [
                        each["neuron"]
                        for each in view.get("replicas", ())
                        if each["state"] == "loaded" and each["slots_busy"] == 0
                    ]
                    if len(ready) == 2:
                        return sorted(ready)
                await asyncio.sleep(0.1)

    def process(self, neuron: str) -> psutil.Process:
        found = [each for each in self.site.processes("neuron") if neuron in each.cmdline()]
        assert len(found) == 1, found
        return found[0]

    def runtime(self, neuron: str) -> psutil.Process:
        """Return the process that runs the model."""
        children = self.process(neuron).children(recursive=True)
        return next(each for each in children if MODEL in command_of(each))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    variables = {"HELEXA_GATEWAY_SHOW_ROUTE": "true"}
    data: Path = tmp_path_factory.mktemp("site")
    config: Json = {
        "backend_kind": "llama_cpp",
        "source": "embedded:helexa-tiny",
        "context_tokens": 1024,
        "slots": SLOTS,
        "policy": {"on_every_neuron": True},
    }
    limits = httpx.Limits(max_connections=None)
    async with (
        site_up(data, "--neurons", "2", variables=variables) as site,
        httpx.AsyncClient(base_url=site.gateways[0], timeout=WITHIN_S, limits=limits) as http,
    ):
        async with site.orchestrator() as orchestrator:
            added = await orchestrator.put(f"/api/models/{MODEL}", json=config)
            assert added.status_code == 201, added.text
        made = Fleet(site, http)
        neurons = await made.loaded()
        made.expected = await made.ask(neurons[0], None)
        assert all(each.is_whole for each in made.expected)
        yield made


def check(readers: list[Reader], expected: list[Reader]) -> None:
    """Check that nearly all went on as if nothing had been, and the rest say that they did not."""
    for each in readers:
        assert len(each.ends) == 1, each
        assert each.ends[0] in (END, "stream_interrupted")
        assert each.numbers == list(range(len(each.numbers)))
    same = [a for a, b in zip(readers, expected, strict=True) if a.is_whole and a.text == b.text]
    assert len(same) >= 45, [
        (number, a.ends, a.text, b.text)
        for number, (a, b) in enumerate(zip(readers, expected, strict=True))
        if a.text != b.text
    ]
    counts = [(a.usage, b.usage) for a, b in zip(readers, expected, strict=True) if a in same]
    differ = [
        (a, b)
        for a, b in counts
        if a is None
        or b is None
        or any(a[name] != b[name] for name in ("prompt_tokens", "completion_tokens"))
    ]
    assert len(differ) <= 5, differ


async def test_a_killed_neurons_streams_go_on_at_the_other(fleet: Fleet) -> None:
    victim, _ = await fleet.loaded()

    async def kill() -> None:
        fleet.process(victim).kill()

    check(await fleet.ask(victim, kill), fleet.expected)
    await fleet.loaded()


async def test_a_frozen_neurons_streams_go_on_and_its_slots_come_free(fleet: Fleet) -> None:
    _, victim = await fleet.loaded()
    frozen = fleet.process(victim)

    async def freeze() -> None:
        frozen.send_signal(signal.SIGSTOP)

    try:
        check(await fleet.ask(victim, freeze), fleet.expected)
    finally:
        frozen.send_signal(signal.SIGCONT)
    await fleet.loaded()


async def test_a_killed_runtimes_streams_go_on_at_the_other_neuron(fleet: Fleet) -> None:
    victim, _ = await fleet.loaded()

    async def kill() -> None:
        fleet.runtime(victim).kill()

    check(await fleet.ask(victim, kill), fleet.expected)
    await fleet.loaded()
