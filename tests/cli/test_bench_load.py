# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The load of one step against an endpoint whose answers are known."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import pytest
from tests.cli.endpoint import (
    DONE,
    FOR_EVER,
    Asked,
    Fake,
    Part,
    Reply,
    answered,
    event,
    fake_endpoint,
    refusal,
    response,
    stream,
)

from helexa.cli.bench.endpoint import endpoint
from helexa.cli.bench.level import Figures, Level
from helexa.cli.bench.load import Load
from helexa.cli.bench.plan import Asked as Question
from helexa.cli.bench.plan import Limits, Step
from helexa.cli.bench.prompts import requests

QUESTION = Question("Hi", None, None, 3, {"seed": 1})
WITHIN_S = 60.0


async def measured(
    fake: Fake,
    step: Step,
    *,
    requests_: int | None = None,
    seconds: float | None = None,
    timeout_s: float = 30.0,
    question: Question = QUESTION,
) -> Figures:
    """Return what one step came to."""
    at = endpoint(fake.url, "sk-key")
    asked = requests(at, "tiny", question, "run")(step.streamed)
    load = Load(at, asked, step, Limits(requests_, seconds, timeout_s))
    await asyncio.wait_for(load.run(ignore), WITHIN_S)
    return load.figures()


def ignore(level: Level, seconds: float) -> None:
    del level, seconds


def in_turn(*replies: Sequence[Part]) -> Reply:
    """Answer with each of these in turn, then as usual."""
    left: Iterator[Sequence[Part]] = iter(replies)
    return lambda asked: next(left, None) or answered(asked)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with fake_endpoint() as made:
        yield made


async def test_a_step_ends_after_its_requests(fake: Fake) -> None:
    found = await measured(fake, Step(streamed=True, concurrency=3), requests_=20)

    assert (found.requests, found.answered, found.failed) == (20, 20, 0)
    assert len(fake.asked) == 20
    assert fake.connections == found.connections == 3
    assert found.completion_tokens == 60
    assert found.prompt_tokens == 5
    assert not found.are_tokens_events
    assert found.time_to_first_token.count == 20


async def test_a_step_ends_after_its_time(fake: Fake) -> None:
    found = await measured(fake, Step(streamed=False, concurrency=2), seconds=0.2)

    assert found.answered == len(fake.asked) > 0
    assert found.seconds >= 0.2
    assert found.requests_per_s == pytest.approx(found.answered / found.seconds)


async def test_what_is_under_way_at_the_end_is_awaited() -> None:
    with fake_endpoint(lambda asked: [0.5, *answered(asked)]) as slow:
        found = await measured(slow, Step(streamed=False, concurrency=2), seconds=0.1)

    assert found.answered == 2
    assert found.abandoned == 0
    assert found.latency.p50_s is not None
    assert found.latency.p50_s >= 0.45


async def test_a_request_carries_the_key_the_model_and_more(fake: Fake) -> None:
    await measured(fake, Step(streamed=True, concurrency=1), requests_=1)

    [asked] = fake.asked
    assert asked.key == "Bearer sk-key"
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 1,
    }


def prompts(fake: Fake) -> list[str]:
    found: list[str] = []
    for asked in fake.asked:
        messages = asked.body["messages"]
        assert isinstance(messages, list)
        found.append(messages[0]["content"])
    return found


async def test_no_two_made_up_prompts_begin_alike(fake: Fake) -> None:
    question = Question("", 100, None, 3, {})
    await measured(fake, Step(False, 1), requests_=5, question=question)

    begins = [text.split()[0] for text in prompts(fake)]
    assert len(set(begins)) == 5
    assert {len(text.split()) for text in prompts(fake)} == {99}


async def test_made_up_prompts_can_take_turns(fake: Fake) -> None:
    question = Question("", 10, 2, 3, {})
    await measured(fake, Step(False, 1), requests_=5, question=question)

    first, second, *rest = prompts(fake)
    assert first != second
    assert rest == [first, second, first]


async def test_refusals_and_failures_are_counted_with_their_codes() -> None:
    error = b'data: {"error": {"code": "stream_interrupted", "message": "gone"}}\n\n'
    reply = in_turn(
        refusal(429, "rate_limited", "slow down"),
        refusal(500, "internal", "a defect"),
        stream(event("a"), error),
        stream(event("a"), event("b")),
        stream(event("a"), ends=False),
    )
    with fake_endpoint(reply) as fake:
        found = await measured(fake, Step(streamed=True, concurrency=1), requests_=7)

    assert (found.answered, found.refused, found.failed) == (2, 1, 4)
    assert {each.code: each.message for each in found.reasons} == {
        "429 rate_limited": "slow down",
        "500 internal": "a defect",
        "stream_interrupted": "gone",
        "stream_cut": "the stream ended without its end mark",
        "connection_closed": "the connection was closed before the answer was whole",
    }
    assert found.completion_tokens == 6


async def test_a_refused_client_does_not_ask_again_at_once() -> None:
    with fake_endpoint(lambda _: refusal(429, "full", "no room")) as fake:
        found = await measured(fake, Step(streamed=True, concurrency=1), seconds=0.5)

    assert found.answered == 0
    assert 1 <= found.refused <= 5


async def test_a_request_to_which_nothing_comes_fails_by_name() -> None:
    reply = in_turn([FOR_EVER], [*stream(event("a"))[:-1], FOR_EVER])
    with fake_endpoint(reply) as fake:
        found = await measured(fake, Step(streamed=True, concurrency=1), requests_=3, timeout_s=0.3)

    assert (found.answered, found.failed) == (1, 2)
    assert [each.code for each in found.reasons] == ["timeout"]


async def test_a_server_that_closes_after_each_answer_costs_connections_only() -> None:
    with fake_endpoint(lambda asked: [*answered(asked), b""]) as fake:
        found = await measured(fake, Step(streamed=True, concurrency=1), requests_=4)

    assert found.answered == 4
    assert found.connections >= 4


async def test_an_endpoint_that_has_gone_is_told() -> None:
    with fake_endpoint() as fake:
        pass

    found = await measured(fake, Step(streamed=True, concurrency=1), requests_=2)

    assert found.failed == 2
    assert [each.code for each in found.reasons] == ["connection_refused"]


async def test_requests_at_a_rate_are_sent_when_they_are_due(fake: Fake) -> None:
    found = await measured(fake, Step(False, 100, rate=200.0), requests_=60)

    assert found.answered == 60
    assert found.rate == 200
    assert 0.1 < found.seconds < 20


async def test_time_at_a_rate_counts_from_when_a_request_was_due() -> None:
    stalls = in_turn([0.8, response(200, b'{"choices": []}')])
    with fake_endpoint(stalls) as fake:
        found = await measured(fake, Step(False, 1, rate=200.0), requests_=20)

    # They were due within the first tenth of a second, and could not be sent before the stall
    # had ended: clients of the same server would have waited as long.
    assert fake.connections == 1
    assert found.answered == 20
    assert found.latency.p50_s is not None
    assert found.latency.p50_s > 0.5


async def test_who_never_gets_a_connection_has_failed() -> None:
    with fake_endpoint(lambda _: [FOR_EVER]) as fake:
        found = await measured(fake, Step(False, 1, rate=500.0), requests_=4, timeout_s=1.0)

    assert found.requests == 4
    assert found.failed == 4
    assert {each.code for each in found.reasons} == {"timeout", "no_connection"}


async def test_a_cancelled_step_has_figures_and_leaves_no_connection() -> None:
    numbers = itertools.count()

    def first_few(asked: Asked) -> Sequence[Part]:
        return answered(asked) if next(numbers) < 4 else [*stream(event("a"), DONE)[:2], FOR_EVER]

    with fake_endpoint(first_few) as fake:
        at = endpoint(fake.url, None)
        step = Step(streamed=True, concurrency=2)
        load = Load(at, requests(at, "tiny", QUESTION, "run")(True), step, Limits(None, None, 30.0))
        running = asyncio.create_task(load.run(ignore))
        await asyncio.to_thread(fake.until_asked, 6)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    found = load.figures()
    assert (found.requests, found.answered, found.failed, found.abandoned) == (6, 4, 0, 2)
    assert found.seconds > 0
