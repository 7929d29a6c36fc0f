# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is noticed of an answer, however its bytes arrive. No network, no clock."""

import asyncio
import json

import pytest
from tests.cli.endpoint import DONE, chunk, event, usage
from typing_extensions import override

from helexa.cli.bench.answer import Answer
from helexa.cli.bench.connection import Connection
from helexa.cli.bench.histogram import Histogram

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [
    event(""),
    event('say "hi"'),
    event(" there"),
    event(more=usage(2, prompt=7)),
    DONE,
]


def streamed(*parts: bytes, status: int = 200) -> Answer:
    """Return the answer whose parts come a second apart, the first at 1."""
    answer = Answer(0.0, streamed=True, gaps=Histogram())
    answer.head(status)
    for at_s, part in enumerate(parts, start=1):
        answer.feed(part, float(at_s))
    answer.end(float(len(parts)))
    return answer


def test_the_first_token_is_the_first_event_with_text() -> None:
    answer = streamed(event(""), event("a"), event("b"), DONE)

    assert answer.first_s == 2
    assert answer.last_s == 3
    assert answer.ended_s == 4
    assert answer.events == 2
    assert answer.trouble is None


def test_the_time_between_tokens_counts_those_that_came_together() -> None:
    gaps = Histogram()
    answer = Answer(0.0, streamed=True, gaps=gaps)
    answer.head(200)
    answer.feed(event("a"), 1.0)
    answer.feed(event("b") + event("c"), 3.0)

    assert gaps.count == 2
    assert gaps.most_s == 2.0
    assert gaps.percentile_s(0.5) == 0.0


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_it_does_not_matter_where_an_event_is_cut(size: int, newline: bytes) -> None:
    whole = b"".join([b": keep-alive\n\n", *EVENTS]).replace(b"\n", newline)
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]

    answer = streamed(*parts)

    assert answer.trouble is None
    assert answer.events == 2
    assert (answer.completion_tokens, answer.prompt_tokens) == (2, 7)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"role": "assistant", "content": "x"},
        {"reasoning_content": "x"},
        {"content": '"'},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_whatever_a_model_says_is_a_token(
    delta: dict[str, object], separators: tuple[str, str]
) -> None:
    data = json.dumps({"choices": [{"delta": delta}]}, separators=separators)

    assert streamed(b"id: 4\ndata: " + data.encode() + b"\n\n", DONE).events == 1


@pytest.mark.parametrize(
    "delta", [{}, {"role": "assistant"}, {"content": ""}, {"content": None}, {"tool_calls": []}]
)
def test_what_says_nothing_is_no_token(delta: dict[str, object]) -> None:
    data = json.dumps({"choices": [{"delta": delta}], "usage": None})

    answer = streamed(b"data: " + data.encode() + b"\n\n", DONE)

    assert answer.events == 0
    assert answer.first_s is None
    assert answer.completion_tokens is None


def test_a_stream_without_its_end_mark_has_failed() -> None:
    answer = streamed(event("a"), event("b"))

    assert answer.trouble is not None
    assert answer.trouble.code == "stream_cut"
    assert not answer.trouble.is_refusal


def test_an_end_mark_without_an_empty_line_is_one() -> None:
    assert streamed(event("a"), b"data: [DONE]").trouble is None


def test_an_error_in_the_middle_of_a_stream_is_a_failure_with_its_code() -> None:
    error = {"error": {"code": "stream_interrupted", "message": "gone", "retry_after": 2}}
    answer = streamed(event("a"), b"data: " + json.dumps(error).encode() + b"\n\n")

    assert answer.trouble is not None
    assert answer.trouble.code == "stream_interrupted"
    assert answer.trouble.message == "gone"
    assert not answer.trouble.is_refusal


def test_an_error_in_place_of_the_first_token_that_says_when_to_retry_is_a_refusal() -> None:
    error = {"error": {"code": "no_capacity", "message": "full", "retry_after": 2}}
    answer = streamed(b": wait\n\n", b"data: " + json.dumps(error).encode() + b"\n\n")

    assert answer.trouble is not None
    assert answer.trouble.is_refusal


@pytest.mark.parametrize(
    ("status", "body", "code", "is_refusal"),
    [
        (429, b'{"error": {"code": "rate_limited", "message": "m"}}', "429 rate_limited", True),
        (503, b"<h1>busy</h1>", "503", True),
        (500, b'{"error": "broken"}', "500", False),
        (404, b"[]", "404", False),
        (204, b"", "204", False),
    ],
)
def test_a_status_that_is_no_success_has_a_code(
    status: int, body: bytes, code: str, *, is_refusal: bool
) -> None:
    answer = streamed(body, status=status)

    assert answer.trouble is not None
    assert answer.trouble.code == code
    assert answer.trouble.is_refusal == is_refusal


def test_a_whole_answer_tells_its_tokens() -> None:
    answer = Answer(0.0, streamed=False, gaps=Histogram())
    answer.head(200)
    for part in (
        b'{"choices": [{"message": {"content": "x"}}], "usa',
        b'ge": {"prompt_tokens": 3,',
    ):
        answer.feed(part, 1.0)
    answer.feed(b'"completion_tokens": 12, "completion_tokens_details": {}}}', 2.0)
    answer.end(2.0)

    assert answer.trouble is None
    assert (answer.completion_tokens, answer.prompt_tokens) == (12, 3)


def test_a_page_of_a_proxy_is_no_answer() -> None:
    answer = Answer(0.0, streamed=False, gaps=Histogram())
    answer.head(200)
    answer.feed(b"<html>Welcome</html>", 1.0)
    answer.end(1.0)

    assert answer.trouble is not None
    assert answer.trouble.code == "not_an_answer"


class Socket(asyncio.Transport):
    """Takes what is sent and keeps whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_closed = False

    @override
    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.sent += data

    @override
    def is_closing(self) -> bool:
        return self.is_closed

    @override
    def abort(self) -> None:
        self.is_closed = True


async def received(
    *parts: bytes, is_streamed: bool = True, closes: bool = False
) -> tuple[Answer, Connection, Socket]:
    """Return the answer that `parts` are, each of them one read from the socket."""
    connection, socket = Connection(lambda: 1.0), Socket()
    connection.connection_made(socket)
    answer = Answer(0.0, streamed=is_streamed, gaps=Histogram())
    exchange = asyncio.create_task(connection.exchange(b"POST", answer))
    await asyncio.sleep(0)
    for part in parts:
        connection.data_received(part)
    if closes:
        connection.connection_lost(None)
    await asyncio.wait_for(exchange, 10)
    return answer, connection, socket


@pytest.mark.parametrize("size", [1, 5, 100, 10_000])
async def test_it_does_not_matter_where_a_response_is_cut(size: int) -> None:
    whole = HEAD + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n"

    answer, connection, socket = await received(
        *(whole[at : at + size] for at in range(0, len(whole), size))
    )

    assert socket.sent == b"POST"
    assert answer.trouble is None
    assert answer.events == 2
    assert connection.is_usable


async def test_an_event_may_come_in_several_chunks_and_several_in_one() -> None:
    whole = b"".join(EVENTS)
    parts = [whole[:50], whole[50:51], whole[51:]]

    answer, _, _ = await received(HEAD, *map(chunk, parts), b"0\r\n\r\n")

    assert answer.trouble is None
    assert answer.events == 2


async def test_a_connection_that_breaks_in_a_stream_keeps_what_came() -> None:
    answer, connection, _ = await received(HEAD, chunk(event("a")), closes=True)

    assert answer.events == 1
    assert answer.trouble is not None
    assert answer.trouble.code == "connection_closed"
    assert not connection.is_usable


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    body = json.dumps({"choices": [], **usage(1)}).encode()

    answer, connection, _ = await received(
        b"HTTP/1.1 200 OK\r\n\r\n", body, is_streamed=False, closes=True
    )

    assert answer.trouble is None
    assert answer.completion_tokens == 1
    assert not connection.is_usable


async def test_a_server_that_says_close_is_not_asked_again_over_that_connection() -> None:
    head = b"HTTP/1.1 429 Busy\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

    answer, connection, socket = await received(head)

    assert answer.trouble is not None
    assert answer.trouble.code == "429"
    assert socket.is_closed
    assert not connection.is_usable


async def test_an_interim_response_is_not_the_answer() -> None:
    body = b'{"choices": []}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)

    answer, _, _ = await received(b"HTTP/1.1 100 Continue\r\n\r\n", head + body, is_streamed=False)

    assert answer.status == 200
    assert answer.trouble is None


async def test_what_is_not_http_is_told() -> None:
    answer, _, socket = await received(b"SSH-2.0-OpenSSH_9.2\r\n")

    assert answer.trouble is not None
    assert answer.trouble.code == "not_http"
    assert socket.is_closed


async def test_a_second_answer_to_one_request_is_not_taken() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"choices": []}'

    answer, _, socket = await received(one + one, is_streamed=False)

    assert answer.trouble is not None
    assert socket.is_closed


async def test_an_exchange_that_is_cancelled_closes_its_connection() -> None:
    connection, socket = Connection(lambda: 1.0), Socket()
    connection.connection_made(socket)
    answer = Answer(0.0, streamed=True, gaps=Histogram())
    exchange = asyncio.create_task(connection.exchange(b"POST", answer))
    await asyncio.sleep(0)

    exchange.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange

    assert socket.is_closed
