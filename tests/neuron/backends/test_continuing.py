# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A request for the rest of an answer, as each kind of backend understands it."""

import json
from collections.abc import AsyncIterator

import pytest

from helexa.neuron.backends.continuing import (
    Fields,
    Way,
    after_assistant_message,
    after_final_message,
    after_prompt,
    continued,
    way_of,
)
from helexa.neuron.backends.llama_cpp import LlamaCppBackend
from helexa.neuron.backends.openai_proxy import OpenAiProxyBackend
from helexa.neuron.tiny import files
from helexa.protocol.errors import BackendError, ModelFailedError, UnsupportedError
from helexa.protocol.messages.models import ContinuationWay, ModelConfig

ASK: Fields = {"role": "user", "content": "Tell me a story."}
BEGUN: Fields = {"role": "assistant", "content": "Once "}


def messages(way: Way, *given: Fields) -> object:
    return way({"messages": list(given), "seed": 1}, " upon ")["messages"]


def test_the_text_is_one_last_message_and_never_trimmed() -> None:
    added = {"role": "assistant", "content": " upon "}
    assert messages(after_assistant_message, ASK) == [ASK, added]
    assert messages(after_final_message, ASK) == [ASK, added]


def test_a_message_that_the_client_had_begun_is_the_beginning_of_the_text() -> None:
    joined = {"role": "assistant", "content": "Once  upon "}
    assert messages(after_assistant_message, ASK, BEGUN) == [ASK, joined]
    fields = after_final_message(
        {"messages": [ASK, BEGUN], "continue_final_message": True}, " upon "
    )
    assert fields["messages"] == [ASK, joined]
    assert (fields["continue_final_message"], fields["add_generation_prompt"]) == (True, False)


def test_a_message_that_is_answered_and_not_continued_stays_as_it_is() -> None:
    added = {"role": "assistant", "content": " upon "}
    assert messages(after_final_message, ASK, BEGUN) == [ASK, BEGUN, added]


def test_a_prompt_grows_by_the_text() -> None:
    assert after_prompt({"prompt": "Once"}, " upon ")["prompt"] == "Once upon "


@pytest.mark.parametrize(
    ("way", "fields"),
    [
        (after_prompt, {"prompt": [1, 2]}),
        (after_assistant_message, {"messages": [{"role": "assistant", "content": [{}]}]}),
        (after_assistant_message, {"messages": [{"role": "assistant"}]}),
    ],
)
def test_what_is_no_text_is_not_continued(way: Way, fields: Fields) -> None:
    with pytest.raises(UnsupportedError):
        way(fields, "x")


@pytest.mark.parametrize(
    ("limit", "tokens", "left", "has_room"),
    [
        (None, 5, None, True),
        (10, 4, 6, True),
        (10, 9, 1, True),
        (10, 10, 1, False),
        (3, 9, 1, False),
    ],
)
def test_the_limit_covers_the_whole_answer(
    limit: int | None, tokens: int, left: int | None, *, has_room: bool
) -> None:
    fields: Fields = {"prompt": "a"} | ({} if limit is None else {"max_tokens": limit})
    body, found = continued(json.dumps(fields).encode(), after_prompt, "b", tokens)
    assert json.loads(body).get("max_tokens") == left
    assert json.loads(body)["prompt"] == "ab"
    assert found == has_room


def test_an_answer_without_text_is_asked_for_as_it_was() -> None:
    body, _ = continued(b'{"messages":[1]}', after_prompt, "", 0)
    assert json.loads(body) == {"messages": [1]}


@pytest.mark.parametrize("body", [b"[]", b"{"])
def test_a_body_that_is_no_object_is_the_requests_fault(body: bytes) -> None:
    with pytest.raises(BackendError):
        continued(body, after_prompt, "x", 1)


def test_a_configuration_names_a_known_way_or_none() -> None:
    assert way_of(None) is None
    assert way_of(None, ContinuationWay.ASSISTANT_MESSAGE) is after_assistant_message
    assert way_of("none", ContinuationWay.ASSISTANT_MESSAGE) is None
    assert way_of("continue_final_message") is after_final_message
    with pytest.raises(ModelFailedError, match="assistant_message"):
        way_of("somehow")


async def test_a_server_of_others_is_trusted_to_continue_only_where_that_is_said() -> None:
    fields: Fields = {"model": "m", "backend_kind": "openai_proxy"}
    with pytest.raises(UnsupportedError):
        OpenAiProxyBackend(ModelConfig.model_validate(fields)).continued_chat({}, "x")


@pytest.fixture
async def tiny() -> AsyncIterator[LlamaCppBackend]:
    config = ModelConfig.model_validate({"model": "tiny", "backend_kind": "llama_cpp"})
    backend = LlamaCppBackend(config, model_path=files.model_path())
    await backend.start(lambda _: None)
    yield backend
    await backend.stop(1)


@pytest.mark.parametrize("prompt", ["Tell me a story.", "Count from 1 to 20.", "Who are you?"])
async def test_llama_cpp_goes_on_as_if_nothing_had_been_wherever_it_is_cut(
    tiny: LlamaCppBackend, prompt: str
) -> None:
    asked = {
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 200,
        "messages": [{"role": "user", "content": prompt}],
    }
    body = json.dumps(asked).encode()
    deltas, usage = await read(tiny, body)
    for cut in range(1, len(deltas)):
        part, has_room = continued(body, tiny.continued_chat, "".join(deltas[:cut]), cut)
        rest, counts = await read(tiny, part)
        assert has_room
        assert rest == deltas[cut:], cut
        assert counts["prompt_tokens"] - cut == usage["prompt_tokens"]
        assert counts["completion_tokens"] + cut == usage["completion_tokens"]


async def read(backend: LlamaCppBackend, body: bytes) -> tuple[list[str], dict[str, int]]:
    stream = await backend.chat(body)
    events = [json.loads(event) async for batch in stream for event in batch]
    said = [choice["delta"].get("content") for each in events for choice in each["choices"]]
    return [text for text in said if text], events[-1]["usage"]
