# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Cutting a byte stream into events."""

import pytest

from helexa.neuron.backends.events import EventSplitter
from helexa.protocol.errors import BackendError

STREAM = (
    b': ping\n\ndata: {"a":"\xc3\xa9"}\n\nevent: message\nid: 7\nretry: 5\ndata:{"b":2}\n\n'
    b"data: one\ndata: two\n\n\n\ndata: {}\n\ndata: [DONE]\n\n"
)
EVENTS = [b'{"a":"\xc3\xa9"}', b'{"b":2}', b"one\ntwo", b"{}"]


def split(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events, splitter.is_done


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_gives_the_same_events_wherever_it_is_cut(line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end)
    # A lone \r ends a line only once it is known that no \n follows.
    stream += b":" if line_end == b"\r" else b""

    assert split([stream]) == (EVENTS, True)
    assert split([stream[i : i + 1] for i in range(len(stream))]) == (EVENTS, True)
    for cut in range(len(stream)):
        assert split([stream[:cut], stream[cut:]]) == (EVENTS, True)


def test_nothing_is_read_after_the_end_mark() -> None:
    splitter = EventSplitter()

    assert splitter.feed(b"data: [DONE]\n\ndata: {}\n\n") == []
    assert splitter.feed(b"data: {}\n\n") == []
    assert splitter.is_done


def test_events_of_one_read_come_together() -> None:
    assert EventSplitter().feed(b"data: 1\n\ndata: 2\n\ndata: 3") == [b"1", b"2"]


def test_a_stream_without_its_end_mark_is_not_done() -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: 1\n\ndata: 2")

    assert splitter.finish() == [b"2"]
    assert not splitter.is_done


def test_an_end_mark_may_lack_its_empty_line() -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: 1\n\ndata: [DONE]\n")

    assert splitter.finish() == []
    assert splitter.is_done


def test_an_error_field_of_an_old_llama_server_comes_out_as_an_error_object() -> None:
    assert EventSplitter().feed(b'error: {"code":500}\n\n') == [b'{"error": {"code":500}}']


def test_an_event_without_end_does_not_fill_the_memory() -> None:
    splitter = EventSplitter()
    for _ in range(16):
        splitter.feed(b"x" * (1 << 20))

    with pytest.raises(BackendError, match="too long"):
        splitter.feed(b"x")
