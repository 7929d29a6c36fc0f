# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Our parser reads what nats-py's own does, however the bytes are cut."""

import asyncio
import json
from dataclasses import dataclass, field
from random import Random

import pytest
from nats.errors import ProtocolError
from nats.protocol.parser import Parser as TheirParser

from helexa.bus.parser import MAX_LINE_BYTES, Parser

Seen = tuple[object, ...]


@dataclass
class Ours:
    """What our parser has told."""

    seen: list[Seen] = field(default_factory=list)

    def on_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        self.seen.append((sid, subject, reply, data, header))

    def on_operation(self, name: bytes, rest: bytes) -> None:
        if name == b"INFO":
            self.seen.append((name, json.loads(rest)))
        elif name == b"-ERR":
            self.seen.append((name, rest.decode().lower()))
        elif name != b"+OK":
            self.seen.append((name,))


@dataclass
class Theirs:
    """What nats-py's parser has told its client."""

    seen: list[Seen] = field(default_factory=list)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes | None
    ) -> None:
        self.seen.append((sid, bytes(subject), bytes(reply), data, header or b""))

    async def _process_ping(self) -> None:
        self.seen.append((b"PING",))

    async def _process_pong(self) -> None:
        self.seen.append((b"PONG",))

    async def _process_info(self, info: object) -> None:
        self.seen.append((b"INFO", info))

    async def _process_err(self, text: str) -> None:
        self.seen.append((b"-ERR", text))


def operation(random: Random) -> bytes:
    subject = ".".join(random.choice(("a", "_INBOX", "=2E", "M", "HMSG")) for _ in range(3))
    reply = random.choice((b"", b"_INBOX.x.y "))
    size = random.choice((0, 1, 7, 300, 5000))
    data = random.choice((random.randbytes(size), b"\r\nMSG a 1 5\r\n" * (size // 12)))
    head = b"NATS/1.0\r\n" + b"Name: value\r\n" * random.randrange(3) + b"\r\n"
    start = subject.encode() + b" %d " % random.randrange(1, 99) + reply
    return random.choice(
        (
            b"MSG " + start + b"%d\r\n%b\r\n" % (len(data), data),
            b"HMSG " + start + b"%d %d\r\n" % (len(head), len(head + data)) + head + data + b"\r\n",
            b"PING\r\n",
            b"PONG\r\n",
            b"+OK\r\n",
            b"-ERR 'Permissions Violation for Publish to \"x y\"'\r\n",
            b'INFO {"server_id":"x","connect_urls":["a:1", "b:2"]}\r\n',
        )
    )


def cut(random: Random, stream: bytes) -> list[bytes]:
    longest = random.choice((1, 3, 40, 4096, len(stream)))
    pieces = []
    while stream:
        size = random.randrange(1, longest + 1)
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


@pytest.mark.parametrize("seed", range(300))
async def test_any_cutting_of_a_stream_reads_as_nats_py_reads_it(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - the same cases in each run
    stream = b"".join(operation(random) for _ in range(random.randrange(1, 12))) + b"PING\r\n"
    ours, theirs = Ours(), Theirs()
    parser, their_parser = Parser(ours), TheirParser(theirs)
    for piece in cut(random, stream):
        parser.feed(piece)
        await their_parser.parse(piece)
        assert ours.seen == theirs.seen
    assert ours.seen[-1] == (b"PING",)


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"MSG a 1\r\nx\r\n",
        b"MSG 5\r\nhello\r\n",
        b"MSG a x 5\r\nhello\r\n",
        b"MSG a 1 r r 5\r\nhello\r\n",
        b"HMSG a 1 5\r\nhello\r\n",
        b"\r\n",
        b"x" * MAX_LINE_BYTES,
    ],
)
def test_what_no_nats_server_says_is_refused_and_so_is_the_rest(stream: bytes) -> None:
    ours = Ours()
    parser = Parser(ours)
    with pytest.raises(ProtocolError):
        parser.feed(stream)
    parser.feed(b"PING\r\n")
    assert ours.seen == []
    parser.reset()
    parser.feed(b"PING\r\n")
    assert ours.seen == [(b"PING",)]


def test_a_long_line_is_waited_for() -> None:
    ours = Ours()
    parser = Parser(ours)
    known = [f"10.0.0.{number}:4222" for number in range(1000)]
    line = b"INFO " + json.dumps({"connect_urls": known}).encode() + b"\r\n"
    for at in range(0, len(line), 4096):
        parser.feed(line[at : at + 4096])
    assert ours.seen == [(b"INFO", {"connect_urls": known})]


async def test_a_large_message_is_joined_once() -> None:
    ours = Ours()
    parser = Parser(ours)
    data = bytes(32 * 1024 * 1024)
    stream = b"MSG a 1 %d\r\n" % len(data) + data + b"\r\n"

    def feed() -> None:
        for at in range(0, len(stream), 4096):
            parser.feed(stream[at : at + 4096])

    # To join what there is at each piece would move 128 GiB.
    await asyncio.wait_for(asyncio.to_thread(feed), 60)
    assert ours.seen == [(1, b"a", b"", data, b"")]
